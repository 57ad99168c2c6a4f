"""How close a lowered model comes to the float model, on samples where there are some, and at several shapes always."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple, final

import numpy as np

from toolkit.data import Dataset
from toolkit.errors import ParityError, ToolkitError, UsageError
from toolkit.evaluator.stepping import steps
from toolkit.providers.session import Session
from toolkit.tensors import Array, Feeds, TensorSpec, example_inputs
from toolkit.verifier.metrics import OutputMetrics, compare_arrays
from toolkit.verifier.shapes import shape_cases
from toolkit.verifier.tolerances import judge, tolerance_for

CHECK_SAMPLES = 64
CHECK_BATCH = 4
"""Larger batches are no faster here, and what an engine holds of one grows with it: 3 GB at 32 for a ViT."""
_LARGEST_BYTES = 128 << 20  # of one output, kept to be compared as a whole
_WRONG_SHARE = 0.5  # of an integer output; such an output follows from scores, whose ties fall either way

_SMALL = 32
"""Times smaller than the largest slice: eight bits over both leave three for the smaller one."""
_FEWEST_AXES, _MOST_SLICES = 3, 512

Outputs = dict[str, Array]


@final
class Reference:
    """What the float model answers: on the first samples of ``data``, and at several shapes. Asked once, then kept.

    Args:
        session: the float model, which stays open.
        inputs: its inputs as the file says, with names of dims.
        data: samples; None for random inputs alone.
        shapes: how many sets of sizes to try at most; None for all that say something.
    """

    def __init__(
        self, session: Session, inputs: Sequence[TensorSpec], data: Dataset | None, shapes: int | None = None
    ) -> None:
        self.session, self.inputs, self._shapes = session, inputs, shapes
        self.data = None if data is None else data.take(0, CHECK_SAMPLES).batched(min(data.batch_size, CHECK_BATCH))

    @cached_property
    def at_shapes(self) -> list[tuple[Feeds, Outputs]]:
        """Feeds and answers at the usual, the smallest and larger sizes of every dynamic dim, those it runs at."""
        return list(self._at_shapes())

    @cached_property
    def on_data(self) -> list[Outputs]:
        assert self.data is not None
        return [outputs for _, outputs in steps(self.session, self.data, self.inputs)]

    def _at_shapes(self) -> Iterator[tuple[Feeds, Outputs]]:
        for index, case in enumerate(islice(shape_cases(self.inputs), self._shapes)):
            for sizes in (case.dims, *case.alternatives):
                feeds = example_inputs(self.inputs, sizes, seed=index)
                try:
                    yield feeds, self.session(feeds)
                except ToolkitError:
                    continue  # a size that the float model itself does not take says nothing about the other
                break


def fidelity(reference: Reference, candidate: Session) -> tuple[OutputMetrics, ...]:
    """Per output, the error of ``candidate``: over samples where the reference has some, else over random inputs.

    It is run at several shapes in either case.

    Raises:
        UsageError: the reference runs at none of them and there is no data.
        ParityError: the candidate does not run where the reference does, or says NaN where that does not.
        ToolkitError: the reference does not run on the data.
    """
    pairs = [(wanted, _run(candidate, feeds)) for feeds, wanted in reference.at_shapes]
    for wanted, got in pairs:
        _require_finite(wanted, got, candidate)
    if reference.data is not None:
        return _compare(list(zip(reference.on_data, _on_data(reference, candidate), strict=True)))
    if not pairs:
        raise UsageError(
            "the model runs on none of the random inputs tried", where=reference.session.model,
            next_step="give samples with --data or --calibration",
        )  # fmt: skip
    return _worst([_compare([pair]) for pair in pairs])


def refusal(metrics: Iterable[OutputMetrics], precision: str) -> str:
    """Why these errors mean a broken model; "" when they do not."""
    tolerance = tolerance_for(precision)
    for item in metrics:
        if item.comparable and not item.is_float:
            if item.mismatches > _WRONG_SHARE * item.elements:
                return f"output '{item.name}': {item.mismatches} of {item.elements} elements differ"
        elif reason := judge(item, tolerance):
            return f"output '{item.name}': {reason}"
    return ""


def _run(candidate: Session, feeds: Feeds) -> Outputs:
    try:
        return candidate(feeds)
    except ToolkitError as exc:
        raise _does_not_run(exc) from exc


def _does_not_run(exc: ToolkitError) -> ParityError:
    return ParityError("the lowered model does not run where the float model does", got=exc)


def _require_finite(wanted: Outputs, got: Outputs, candidate: Session) -> None:
    for name, values in wanted.items():
        if values.dtype.kind in "fV" and _finite(values) and not _finite(got[name]):
            raise ParityError(f"output '{name}' is not finite where the float model's is", where=candidate.target.name)


def _finite(values: Array) -> bool:
    return bool(np.isfinite(values.astype(np.float32)).all())


def _on_data(reference: Reference, candidate: Session) -> list[Outputs]:
    assert reference.data is not None
    try:
        return [outputs for _, outputs in steps(candidate, reference.data, reference.inputs)]
    except ToolkitError as exc:
        raise _does_not_run(exc) from exc


def _compare(pairs: Sequence[tuple[Outputs, Outputs]]) -> tuple[OutputMetrics, ...]:
    found: list[OutputMetrics] = []
    for name in pairs[0][0]:
        items = [(wanted[name], got[name]) for wanted, got in pairs]
        found.append(_compare_output(name, items))
        if part := small_part([wanted for wanted, _ in items]):
            small = [(wanted.take(part.slices, part.axis), got.take(part.slices, part.axis)) for wanted, got in items]
            found.append(_compare_output(f"{name} ({part.label})", small))
    return tuple(found)


class SmallPart(NamedTuple):
    """Slices of an output, along ``axis``, that are small beside its other ones."""

    axis: int
    slices: list[int]
    label: str


def small_part(arrays: Sequence[Array]) -> SmallPart | None:
    """The slices of an output that holds things of different size, such as boxes in pixels beside scores below one.

    The error of the large ones says nothing about them: they could be wiped out without a trace in it.
    Found along the last or the second axis of arrays of rank 3 and more; None where sizes are alike.
    """
    first = arrays[0]
    if first.ndim < _FEWEST_AXES or first.dtype.kind != "f":
        return None
    for axis in (first.ndim - 1, 1):
        if not 1 < first.shape[axis] <= _MOST_SLICES or any(
            array.ndim != first.ndim or array.shape[axis] != first.shape[axis] for array in arrays
        ):
            continue
        others = tuple(other for other in range(first.ndim) if other != axis)
        power = sum(np.square(array, dtype=np.float64).sum(axis=others) for array in arrays)
        size = np.sqrt(power)
        small = [index for index, own in enumerate(size.tolist()) if 0 < own < size.max() / _SMALL]
        if small and np.isfinite(size).all():
            label = f"{len(small)} of {len(size)} slices, below 1/{_SMALL} of the others"
            return SmallPart(axis, small, label)
    return None


def _compare_output(name: str, pairs: Sequence[tuple[Array, Array]]) -> OutputMetrics:
    """All samples as one array where they stack, else the worst of them."""
    first = pairs[0][0]
    stacks = first.ndim > 0 and all(
        wanted.shape == got.shape and wanted.shape[1:] == first.shape[1:] for wanted, got in pairs
    )
    if stacks and sum(wanted.nbytes for wanted, _ in pairs) <= _LARGEST_BYTES:
        wanted, got = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return compare_arrays(wanted, got, name)
    return _worst([(compare_arrays(wanted, got, name),) for wanted, got in pairs])[0]


def _worst(cases: Sequence[tuple[OutputMetrics, ...]]) -> tuple[OutputMetrics, ...]:
    """Per output, the metrics of the case that is furthest off."""
    by_name: dict[str, list[OutputMetrics]] = {}
    for item in (item for case in cases for item in case):
        by_name.setdefault(item.name, []).append(item)
    return tuple(max(items, key=_badness) for items in by_name.values())


def _badness(item: OutputMetrics) -> tuple[bool, int, float]:
    return not item.comparable, item.nonfinite_mismatches + item.mismatches, -item.snr_db
