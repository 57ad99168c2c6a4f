"""A dataset: rows of a source, selected, preprocessed and cut into batches, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, final

import msgspec
import numpy as np

from toolkit.data.source import ANONYMOUS, LABELS, RESERVED, SEQUENCE, Block, Column, Source
from toolkit.errors import InvalidData
from toolkit.preprocess import Preprocessing, stacked
from toolkit.tensors import Array, TensorSpec, check_feeds

DEFAULT_BATCH = 32


class Batch(msgspec.Struct, frozen=True):
    """Feeds for one run of a model.

    ``feeds`` may hold more rows than ``count``: a model with a fixed batch size gets the last sample repeated up to it,
    and the outputs of those rows mean nothing. ``labels`` and ``sequences`` have ``count`` rows, or are None.
    """

    feeds: dict[str, Array]
    labels: Array | None
    count: int
    start: int = 0
    """Number of the first sample within the dataset."""
    sequences: Array | None = None
    """For models with state: an id per sample; state is reset where it changes."""


class Window(msgspec.Struct, frozen=True):
    """Samples ``start`` up to, not including, ``stop``."""

    start: int
    stop: int | None

    def mask(self, first: int, count: int) -> Array:
        numbers = np.arange(first, first + count)
        return np.asarray((numbers >= self.start) & (numbers < (np.inf if self.stop is None else self.stop)))

    def done(self, position: int) -> bool:
        return self.stop is not None and position >= self.stop

    def count(self, available: int | None) -> int | None:
        if available is None:
            return None
        return max(0, min(available, available if self.stop is None else self.stop) - self.start)


class Part(msgspec.Struct, frozen=True):
    """Samples that a split put on one side: one boolean per sample."""

    members: Array

    def mask(self, first: int, count: int) -> Array:
        return np.asarray(self.members[first : first + count])

    def done(self, position: int) -> bool:
        return position >= len(self.members)

    def count(self, available: int | None) -> int:
        return int(self.members.sum())


Stage = Window | Part


@final
class Dataset:
    """Batches of feeds and labels. Iterating again starts over (unless the source is an iterator).

    Example:
        >>> for batch in open_data("test.npz", inputs=session.inputs):
        ...     outputs = session(batch.feeds)

    Args:
        source: where the rows are.
        inputs: the model's inputs; None feeds every column as it is.
        preprocessing: what makes inputs of raw columns.
        batch_size: samples per batch; a batch size fixed in ``inputs`` wins.
        state: model input to the output of the previous step that feeds it; added to what the source says.
        stages: selections, applied in order.

    Raises:
        InvalidData: a column that the model needs is not there.
    """

    def __init__(
        self,
        source: Source,
        *,
        inputs: Sequence[TensorSpec] | None = None,
        preprocessing: Preprocessing | None = None,
        batch_size: int = DEFAULT_BATCH,
        state: Mapping[str, str] | None = None,
        stages: tuple[Stage, ...] = (),
    ) -> None:
        self._source, self._inputs = source, inputs
        self._preprocessing = None if preprocessing is None else preprocessing.for_columns(source.columns)
        self._stages = stages
        self.state = {**source.state, **(state or {})}
        self._names = self._column_names()
        self._fixed = fixed_batch(self._fed_inputs())
        self.batch_size = self._fixed or max(1, batch_size)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def count(self) -> int | None:
        """Number of samples, None where only reading them all would tell."""
        count = self._source.count
        for stage in self._stages:
            count = stage.count(count)
        return count

    @property
    def has_labels(self) -> bool:
        return LABELS in self._source.columns

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes where labels count folders in order of their names; else empty."""
        return self._source.class_names

    @property
    def sha256(self) -> str | None:
        """Hash of the whole source, whatever is selected of it; None for iterables."""
        return self._source.sha256()

    def take(self, start: int, stop: int | None = None) -> Dataset:
        """Samples ``start`` up to ``stop`` of this dataset."""
        return self._with(stages=(*self._stages, Window(start, stop)))

    def batched(self, size: int) -> Dataset:
        """The same samples in other batches; as they are where an input of a fixed size stands beside a dynamic batch,
        such as a weight that is an input: it does not go in parts."""
        leading = {isinstance(spec.shape[0], int) for spec in self._fed_inputs() if spec.shape}
        return self if len(leading) > 1 else self._with(batch_size=size)

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Two datasets without a sample in common, drawn at random: ``fraction`` of the samples, and the rest.

        Sequences stay whole. The same seed gives the same split.

        Raises:
            InvalidData: the number of samples is not known, or a side would be empty.
        """
        if self.count is None:
            raise InvalidData("cannot split what has no known length", where=self.name, next_step="take(start, stop)")
        groups = self._sequence_groups()
        total = int(groups.max()) + 1
        chosen = round(total * fraction)
        if not 0 < chosen < total:
            raise InvalidData("one side of the split is empty", where=self.name, got=f"{fraction} of {total}")
        first = np.zeros(total, bool)
        first[np.random.default_rng(seed).permutation(total)[:chosen]] = True
        members = first[groups]
        return self._with(stages=(*self._stages, Part(members))), self._with(stages=(*self._stages, Part(~members)))

    def _sequence_groups(self) -> Array:
        """A number per sample that samples of one sequence share."""
        assert self.count is not None
        if SEQUENCE not in self._source.columns:
            return np.arange(self.count)
        ids = np.concatenate([np.asarray(block[SEQUENCE]) for block in self._selected({SEQUENCE})])
        return np.asarray(np.unique(ids, return_inverse=True)[1])

    def _with(self, **changes: Any) -> Dataset:
        settings: dict[str, Any] = {
            "inputs": self._inputs, "preprocessing": self._preprocessing, "batch_size": self.batch_size,
            "state": self.state, "stages": self._stages,
        }  # fmt: skip
        return Dataset(self._source, **{**settings, **changes})

    def __iter__(self) -> Iterator[Batch]:
        start = 0
        for block in self._rechunked(self._selected({*self._names.values(), LABELS, SEQUENCE})):
            batch = self._batch(block, start)
            start += batch.count
            yield batch
        if start == 0:
            raise InvalidData("no sample is left", where=self.name, got=f"{self._source.count} before the selection")

    def _batch(self, block: Block, start: int) -> Batch:
        count = len(next(iter(block.values())))
        raw = {name: block[column] for name, column in self._names.items() if column in block}
        feeds = {name: values for name, values in self._feeds(raw).items() if self._takes(name)}
        missing = (self._fixed or count) - count
        if missing:
            last = {name: np.repeat(values[-1:], missing, axis=0) for name, values in feeds.items()}
            feeds = {name: np.concatenate([values, last[name]]) for name, values in feeds.items()}
        feeds |= {name: value for name, value in self._source.constants.items() if self._takes(name)}
        self._check(feeds)
        labels, sequences = (None if block.get(key) is None else np.asarray(block[key]) for key in (LABELS, SEQUENCE))
        return Batch(feeds, labels, count, start, sequences)

    def _feeds(self, raw: Mapping[str, Column]) -> dict[str, Array]:
        if self._preprocessing is not None:
            return self._preprocessing.apply(raw, self.name)
        feeds = {name: stacked(values) for name, values in raw.items()}
        for name, values in feeds.items():
            if values is None:
                raise InvalidData(
                    "samples of one batch have different shapes",
                    where=f"{self.name}: '{name}'",
                    next_step="use preprocessing that makes them equal, or batch size 1",
                )
        return {name: values for name, values in feeds.items() if values is not None}

    def _takes(self, name: str) -> bool:
        return self._inputs is None or any(spec.name == name for spec in self._inputs)

    def _check(self, feeds: Mapping[str, Array]) -> None:
        """What this dataset feeds fits the model; inputs that state or the caller feeds are not its business."""
        if self._inputs is not None:
            check_feeds([spec for spec in self._inputs if spec.name in feeds], feeds, self.name)

    def _selected(self, columns: Collection[str]) -> Iterator[Block]:
        """Blocks of the rows that pass every stage; blocks that none passes are left out."""
        positions = [0] * len(self._stages)
        for block in self._source.blocks(self.batch_size, columns):
            for index, stage in enumerate(self._stages):
                if stage.done(positions[index]):
                    return
                size = _rows(block)
                keep = stage.mask(positions[index], size)
                positions[index] += size
                block = {name: _picked(values, keep) for name, values in block.items()}
            if _rows(block):
                yield block

    def _rechunked(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The same rows in blocks of exactly ``batch_size``, the last one shorter."""
        held: Block = {}
        for block in blocks:
            held = {name: _joined(held.get(name), values) for name, values in block.items()}
            while _rows(held) >= self.batch_size:
                yield {name: values[: self.batch_size] for name, values in held.items()}
                held = {name: values[self.batch_size :] for name, values in held.items()}
        if _rows(held):
            yield held

    def _fed_inputs(self) -> list[TensorSpec]:
        """Inputs that columns of the source feed."""
        fixed = {*self.state, *self._source.constants}
        return [spec for spec in self._inputs or () if spec.name not in fixed]

    def _column_names(self) -> dict[str, str]:
        """What each column that is used is called from here on: raw name or model input, to its name in the source."""
        columns = [name for name in self._source.columns if name not in RESERVED]
        wanted = self._wanted()
        if columns == [ANONYMOUS]:
            return {self._sole(wanted): ANONYMOUS}
        there = {*columns, *self._source.constants}
        for name in wanted:
            if name not in there:
                raise InvalidData(
                    f"there is no array '{name}', which the model needs",
                    where=self.name,
                    got=f"arrays {sorted(there)}",
                    expected=f"'{name}'",
                )
        optional = [name for name in self.state if name in columns]
        chosen = [*wanted, *optional] if self._inputs is not None or self._preprocessing is not None else columns
        return {name: name for name in dict.fromkeys(chosen) if name in columns}

    def _wanted(self) -> list[str]:
        """Raw names that the preprocessing reads, and inputs that it does not make."""
        items = self._preprocessing.inputs if self._preprocessing is not None else ()
        made = {item.input for item in items}
        plain = [spec.name for spec in self._fed_inputs() if spec.name not in made]
        return list(dict.fromkeys([*(item.key for item in items), *plain]))

    def _sole(self, wanted: Sequence[str]) -> str:
        if len(wanted) > 1:
            got = f"one array without a name, for {', '.join(wanted)}"
            raise InvalidData("the model needs several arrays", where=self.name, got=got, next_step="use an .npz file")
        return wanted[0] if wanted else "image"


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """The batch size that the inputs insist on: their common leading size; None where one is a name or they differ."""
    leading = {spec.shape[0] for spec in inputs if spec.shape}
    sizes = [dim for dim in leading if isinstance(dim, int)]
    return sizes[0] if len(leading) == len(sizes) == 1 else None


def _rows(block: Block) -> int:
    return len(next(iter(block.values()))) if block else 0


def _picked(values: Column, keep: Array) -> Column:
    if keep.all():
        return values
    if isinstance(values, np.ndarray):
        return np.asarray(values[keep])
    return [value for value, kept in zip(values, keep, strict=True) if kept]


def _joined(before: Column | None, after: Column) -> Column:
    if before is None or not len(before):
        return after
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray) and before.shape[1:] == after.shape[1:]:
        return np.concatenate([before, after])
    return [*before, *after]
