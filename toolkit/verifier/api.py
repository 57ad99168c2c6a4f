"""``toolkit.verify``: run two models on the same inputs, at several shapes and on data, and judge what they answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np

from toolkit.errors import ParityError, ToolkitError, UsageError
from toolkit.providers.session import Session
from toolkit.targets import Target
from toolkit.tensors import FLOATS, Array, Feeds, TensorSpec, example_inputs, numpy_dtype
from toolkit.verifier.metrics import OutputMetrics, compare_arrays
from toolkit.verifier.opening import Opened, open_model
from toolkit.verifier.samples import Samples
from toolkit.verifier.shapes import ShapeCase, merge_specs, shape_cases
from toolkit.verifier.ties import tied_places
from toolkit.verifier.tolerances import Tolerance, judge, tolerance_for

Model = str | os.PathLike[str] | Session


class CaseReport(msgspec.Struct, frozen=True):
    """One set of inputs: what every output's error was and why it does not pass."""

    label: str
    dims: dict[str, int]
    outputs: tuple[OutputMetrics, ...]
    ties: dict[str, int] = {}
    failures: dict[str, str] = {}


class VerifyReport(msgspec.Struct, frozen=True):
    """All cases and the verdict. ``skipped`` says which cases the reference itself did not run, and why."""

    reference: str
    candidate: str
    reference_target: str
    target: str
    tolerance: Tolerance
    cases: tuple[CaseReport, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...]
    passed: bool
    reason: str

    def require(self) -> VerifyReport:
        """This report, if it passed.

        Raises:
            ParityError: it did not.
        """
        if not self.passed:
            raise ParityError("the two models do not agree", where=self.candidate, got=self.reason)
        return self

    def worst(self) -> tuple[OutputMetrics, ...]:
        """Per output, the metrics of the case with the lowest SNR, or with most mismatches."""
        found: dict[str, OutputMetrics] = {}
        for case in self.cases:
            for metrics in case.outputs:
                kept = found.setdefault(metrics.name, metrics)
                if _badness(metrics) > _badness(kept):
                    found[metrics.name] = metrics
        return tuple(found.values())


def _badness(metrics: OutputMetrics) -> tuple[bool, int, float]:
    return not metrics.comparable, metrics.nonfinite_mismatches + metrics.mismatches, -metrics.snr_db


def verify(
    reference: Model,
    candidate: Model,
    *,
    data: Any = None,
    dims: Mapping[str, int] | None = None,
    target: str | Target = "cpu",
    reference_target: str | Target | None = None,
    tolerance: Tolerance | None = None,
    samples: int = 32,
    scales: Iterable[float] = (1.0,),
    seed: int = 0,
) -> VerifyReport:
    """Compare two models output by output.

    Args:
        reference: an ONNX file, a bundle or an open session; what is right by definition.
        candidate: likewise; what is judged.
        data: a path that :func:`toolkit.data.open_data` takes, a dataset, or an iterable of feeds (one dict of arrays
            per run). A path goes through the preprocessing that one of the models records.
        dims: sizes for dynamic dims that shall not vary.
        target: where the candidate runs.
        reference_target: where the reference runs; the cpu provider unless said otherwise.
        tolerance: what to allow; by default that of the coarser of the two files' precisions.
        samples: at most so many samples of ``data``.
        scales: what random floats are multiplied with; each shape runs once per scale.
        seed: of the random inputs.

    Returns:
        The report; ``report.require()`` raises when it did not pass.

    Raises:
        UsageError: the two have different inputs, or the reference ran at none of the shapes.
        ToolkitError: a model cannot be opened.
    """
    if seed < 0:
        raise UsageError("a seed is 0 or more", where="--seed", got=seed)
    with ExitStack() as stack:
        left = stack.enter_context(open_model(reference, reference_target or "cpu"))
        right = stack.enter_context(open_model(candidate, target))
        chosen = tolerance or tolerance_for(left.precision, right.precision)
        specs = merge_specs(left.inputs, right.inputs)
        run = _Run(left, right, chosen)
        for scale in scales:
            run.on_shapes(specs, shape_cases(specs, dims), scale, seed)
        if data is not None:
            pairs = left.state or right.state
            found = left.preprocessing or right.preprocessing
            run.on_data(Samples(data, specs, preprocessing=found, state=pairs, limit=samples))
        return run.report()


class _Run:
    """Collects cases while both models are open."""

    def __init__(self, reference: Opened, candidate: Opened, tolerance: Tolerance) -> None:
        self._reference, self._candidate, self._tolerance = reference, candidate, tolerance
        self._cases: list[CaseReport] = []
        self._skipped: dict[str, str] = {}
        self._notes: dict[str, None] = {}

    def on_shapes(self, specs: tuple[TensorSpec, ...], cases: Iterable[ShapeCase], scale: float, seed: int) -> None:
        for index, case in enumerate(cases):
            label = case.label if scale == 1.0 else f"{case.label} ×{scale:g}"
            refusal: ToolkitError | None = None
            for sizes in (case.dims, *case.alternatives):
                feeds = _scaled(specs, example_inputs(specs, sizes, seed=seed + index), scale)
                try:
                    wanted = self._reference.session(feeds)
                except ToolkitError as exc:
                    refusal = refusal or exc
                    continue
                self._compare(label, sizes, feeds, wanted)
                break
            else:
                self._skipped[label] = f"the reference does not run at {case.dims}: {refusal}"

    def on_data(self, samples: Samples) -> None:
        for index, feeds in enumerate(samples):
            wanted = self._reference.session(feeds)
            samples.answered(wanted)
            self._compare(f"data {index}", {}, feeds, wanted)

    def _compare(self, label: str, sizes: dict[str, int], feeds: Feeds, wanted: dict[str, Array]) -> None:
        try:
            got = self._candidate.session(_cast(feeds, self._candidate.inputs))
        except ToolkitError as exc:
            self._cases.append(CaseReport(label, dict(sizes), (), failures={"": f"the candidate does not run: {exc}"}))
            return
        pairs, failures = self._paired(wanted, got)
        metrics = tuple(compare_arrays(wanted[name], got[other], name) for name, other in pairs.items())
        ties = {
            item.name: self._ties(item.name, pairs[item.name], feeds, wanted, got)
            for item in metrics
            if item.mismatches and item.comparable
        }
        self._cases.append(CaseReport(label, dict(sizes), metrics, ties, failures))

    def _paired(self, wanted: dict[str, Array], got: dict[str, Array]) -> tuple[dict[str, str], dict[str, str]]:
        """Outputs by name, or in their order where names differ but not their number."""
        if set(wanted) <= set(got):
            return {name: name for name in wanted}, {}
        if len(wanted) == len(got):
            self._notes["outputs are compared in their order, since their names differ"] = None
            return dict(zip(wanted, got, strict=True)), {}
        missing = sorted(set(wanted) - set(got))
        return (
            {name: name for name in wanted if name in got},
            dict.fromkeys(missing, "the candidate has no such output"),
        )

    def _ties(self, name: str, other: str, feeds: Feeds, wanted: dict[str, Array], got: dict[str, Array]) -> int:
        """Mismatches that are ties in every graph that tells."""
        slack = 2 * self._tolerance.max_error  # either side may be off
        masks = [
            tied_places(opened.onnx, output, _cast(feeds, opened.inputs), wanted[name], got[other], slack)
            for opened, output in ((self._candidate, other), (self._reference, name))
            if opened.onnx is not None
        ]
        told = [mask for mask in masks if mask is not None]
        return int(np.count_nonzero(np.all(told, axis=0) & (wanted[name] != got[other]))) if told else 0

    def report(self) -> VerifyReport:
        if not self._cases:
            reason = next(iter(self._skipped.values()), "no case was run")
            raise UsageError(
                "the reference ran at none of the shapes tried",
                where=self._reference.name,
                got=reason,
                next_step="give sizes it takes with --dim, or samples with --data",
            )
        cases = tuple(map(self._judged, self._cases))
        failed = [(case, name, why) for case in cases for name, why in case.failures.items()]
        reason = ""
        if failed:
            case, name, why = failed[0]
            sizes = " ".join(f"{dim}={size}" for dim, size in case.dims.items())
            where = f"case '{case.label}'{f' ({sizes})' if sizes else ''}"
            reason = f"{f'output {name!r}, ' if name else ''}{where}: {why}"
        return VerifyReport(
            reference=self._reference.name,
            candidate=self._candidate.name,
            reference_target=self._reference.session.target.name,
            target=self._candidate.session.target.name,
            tolerance=self._tolerance,
            cases=cases,
            skipped=self._skipped,
            notes=tuple(self._notes),
            passed=not failed,
            reason=reason,
        )

    def _judged(self, case: CaseReport) -> CaseReport:
        failures = dict(case.failures)
        for metrics in case.outputs:
            peak = max(item.peak for other in self._cases for item in other.outputs if item.name == metrics.name)
            why = judge(metrics, self._tolerance, ties=case.ties.get(metrics.name, 0), peak=peak)
            if why is not None:
                failures[metrics.name] = why
        return msgspec.structs.replace(case, failures=failures)


def _scaled(specs: tuple[TensorSpec, ...], feeds: dict[str, Array], scale: float) -> dict[str, Array]:
    """Floats without a stated range, times ``scale``."""
    free = {spec.name for spec in specs if spec.dtype in FLOATS and spec.values is None and "mask" not in spec.name}
    return {name: (array * scale).astype(array.dtype) if name in free else array for name, array in feeds.items()}


def _cast(feeds: Feeds, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """``feeds`` in the float types of ``specs``: a half precision file may want half precision inputs."""
    wanted = {spec.name: spec.dtype for spec in specs if spec.dtype in FLOATS}
    return {
        name: array.astype(numpy_dtype(wanted[name])) if name in wanted and array.dtype.name in FLOATS else array
        for name, array in feeds.items()
    }
