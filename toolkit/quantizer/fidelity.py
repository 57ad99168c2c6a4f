"""How close a lowered model comes to the float model, on samples where there are some, and at several shapes always."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from toolkit.data import Dataset
from toolkit.errors import ParityError, ToolkitError, UsageError
from toolkit.evaluator.stepping import steps
from toolkit.providers.base import Session
from toolkit.tensors import Array, Feeds, TensorSpec, example_inputs
from toolkit.verifier.metrics import OutputMetrics, compare_arrays
from toolkit.verifier.shapes import shape_cases
from toolkit.verifier.tolerances import judge, tolerance_for

CHECK_SAMPLES = 64
_LARGEST_BYTES = 128 << 20  # of one output, kept to be compared as a whole
_WRONG_SHARE = 0.5  # of an integer output; such an output follows from scores, whose ties fall either way

Outputs = dict[str, Array]


def fidelity(
    reference: Session, candidate: Session, inputs: Sequence[TensorSpec], data: Dataset | None
) -> tuple[OutputMetrics, ...]:
    """Per output, the error of ``candidate``: over the first samples of ``data``, or over random inputs without it.

    Both are run at the usual, the smallest and larger sizes of every dynamic dim as well.

    Raises:
        UsageError: the reference runs at none of them and there is no data.
        ParityError: the candidate does not run where the reference does, or says NaN where that does not.
        ToolkitError: the reference does not run on the data.
    """
    at_shapes = list(_at_shapes(reference, candidate, inputs))
    for wanted, got in at_shapes:
        _require_finite(wanted, got, candidate)
    if data is None:
        if not at_shapes:
            raise UsageError(
                "the model runs on none of the random inputs tried", where=reference.model,
                next_step="give samples with --data or --calibration",
            )  # fmt: skip
        return _worst([_compare([pair]) for pair in at_shapes])
    return _compare(_on_data(reference, candidate, inputs, data))


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


def _at_shapes(
    reference: Session, candidate: Session, inputs: Sequence[TensorSpec]
) -> Iterator[tuple[Outputs, Outputs]]:
    for index, case in enumerate(shape_cases(inputs)):
        for sizes in (case.dims, *case.alternatives):
            feeds = example_inputs(inputs, sizes, seed=index)
            try:
                wanted = reference(feeds)
            except ToolkitError:
                continue  # a size that the float model itself does not take says nothing about the other
            yield wanted, _run(candidate, feeds)
            break


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


def _on_data(
    reference: Session, candidate: Session, inputs: Sequence[TensorSpec], data: Dataset
) -> list[tuple[Outputs, Outputs]]:
    few = data.take(0, CHECK_SAMPLES)
    wanted = [outputs for _, outputs in steps(reference, few, inputs)]
    try:
        got = [outputs for _, outputs in steps(candidate, few, inputs)]
    except ToolkitError as exc:
        raise _does_not_run(exc) from exc
    return list(zip(wanted, got, strict=True))


def _compare(pairs: Sequence[tuple[Outputs, Outputs]]) -> tuple[OutputMetrics, ...]:
    return tuple(_compare_output(name, [(wanted[name], got[name]) for wanted, got in pairs]) for name in pairs[0][0])


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
    return tuple(max(items, key=_badness) for items in zip(*cases, strict=True))


def _badness(item: OutputMetrics) -> tuple[bool, int, float]:
    return not item.comparable, item.nonfinite_mismatches + item.mismatches, -item.snr_db
