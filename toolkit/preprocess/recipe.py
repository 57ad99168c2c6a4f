"""Preprocessing as data: what turns raw samples into a model's inputs, recorded with the model, applied with numpy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from toolkit.errors import InvalidData, InvalidInput
from toolkit.preprocess.steps import Step
from toolkit.tensors import Array, nearest

Raw = Mapping[str, Array | Sequence[Any]]
SCHEMA_VERSION = 1


class InputSteps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one model input is made: from the raw array called ``source`` (default: the input's name), by ``steps``."""

    input: str
    steps: tuple[Step, ...] = ()
    source: str = ""

    @property
    def key(self) -> str:
        return self.source or self.input

    def apply(self, values: Array | Sequence[Any], where: str = "") -> Array:
        """Run the steps; samples of different sizes go through them one by one and are stacked at the end.

        Raises:
            InvalidData: a step does not fit its data, or samples end in different shapes.
        """
        place = f"{where}: input '{self.input}'" if where else f"input '{self.input}'"
        batch = stacked(values)
        if batch is not None:
            return self._run(batch, place)
        done = [self._run(np.asarray(value)[None], place) for value in values]
        shapes = sorted({item.shape[1:] for item in done})
        if len(shapes) > 1:
            raise InvalidData(
                "samples of one batch have different shapes",
                where=place,
                got=" and ".join(str(list(shape)) for shape in shapes[:3]),
                next_step="add a resize, center_crop, pad or truncate step to the preprocessing, or use batch size 1",
            )
        return np.concatenate(done)

    def _run(self, batch: Array, place: str) -> Array:
        for number, step in enumerate(self.steps, 1):
            try:
                batch = step(batch)
            except (ValueError, IndexError, TypeError, InvalidInput) as exc:
                raise InvalidData(
                    f"preprocessing step {number} ({step.__struct_config__.tag}) does not fit: {exc}",
                    where=place,
                    got=f"{batch.dtype}{list(batch.shape)}",
                ) from exc
        return np.ascontiguousarray(batch)


class Preprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What turns raw samples into the feeds of a model, for the inputs that need it; other arrays pass as they are.

    Example:
        >>> scale = Preprocessing((InputSteps("x", (Scale(factor=1 / 16),)),))
        >>> scale.apply({"x": np.array([[0, 8, 16]])})["x"].tolist()
        [[0.0, 0.5, 1.0]]
    """

    inputs: tuple[InputSteps, ...]
    schema_version: int = SCHEMA_VERSION

    def for_columns(self, names: Collection[str]) -> Preprocessing | None:
        """This, less what makes inputs that ``names`` hold ready-made instead of raw; None where nothing is left."""
        ready = {item.input for item in self.inputs if item.input in names and item.key not in names}
        left = tuple(item for item in self.inputs if item.input not in ready)
        return msgspec.structs.replace(self, inputs=left) if left else None

    def apply(self, raw: Raw, where: str = "") -> dict[str, Array]:
        """Feeds for one batch.

        Args:
            raw: array or list per raw name, leading axis = samples. Names that no input is made from pass through.
            where: where ``raw`` comes from, for messages.

        Raises:
            InvalidData: a raw array is missing, or a step does not fit its data.
        """
        used = {item.key for item in self.inputs}
        feeds = {name: np.asarray(values) for name, values in raw.items() if name not in used}
        for item in self.inputs:
            if item.key not in raw:
                expected = f"'{item.key}', from which input '{item.input}' is made"
                raise InvalidData(
                    "a raw array is missing", where=where or None, got=f"names {sorted(raw)}", expected=expected
                )
            feeds[item.input] = item.apply(raw[item.key], where)
        return feeds

    def to_json(self) -> str:
        """One line of JSON; equal preprocessing gives equal text."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @classmethod
    def from_json(cls, text: str | bytes, where: object = "preprocessing") -> Preprocessing:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidData: not JSON, an unknown step or field, a value of the wrong type, or a newer schema.
        """
        try:
            found = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise InvalidData("the preprocessing does not hold", where=where, got=exc, next_step=_hint(exc)) from exc
        if found.schema_version > SCHEMA_VERSION:
            got = f"schema_version {found.schema_version}"
            raise InvalidData("written by a newer toolkit", where=where, got=got, expected=f"at most {SCHEMA_VERSION}")
        return found


def stacked(values: Array | Sequence[Any]) -> Array | None:
    """``values`` as one array with a leading sample axis; None when samples differ in shape or type."""
    if isinstance(values, np.ndarray):
        return values
    samples = [np.asarray(value) for value in values]
    if len({(sample.shape, sample.dtype.kind) for sample in samples}) != 1:
        return None
    return np.stack(samples)


def _hint(exc: BaseException) -> str | None:
    tags = [str(step.__struct_config__.tag) for step in Step.__args__]
    wrong = str(exc).partition("Invalid value '")[2].partition("'")[0]
    return f"steps are {nearest(wrong, tags)}" if wrong else None
