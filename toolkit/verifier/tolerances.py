"""What counts as the same answer, per precision, each with its source. Judging needs metrics, never another run."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from toolkit.verifier.metrics import OutputMetrics


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one output's error.

    ``max_error`` bounds the largest error as a part of the output's peak; ``snr_db`` bounds the mean error, so that a
    model may not be slightly wrong everywhere; ``top1`` bounds the agreement of rows of scores. Errors below ``floor``
    times the output's peak over all cases always pass: an output that cancels to nothing on one input is all rounding.
    Integers, booleans and text have to be equal, and NaN and infinities to stand in the same places, whatever is set
    here.
    """

    name: str
    max_error: float
    snr_db: float
    floor: float
    top1: float | None = None
    source: str


# u is a type's unit roundoff (2^-53, 2^-24, 2^-11, 2^-8). The floor is 4 ulp = 8 u. float32 and float64: wide enough
# for another order of summation, too narrow for another formula (GELU's tanh form is 1.5e-4 of its peak off). The
# halves: some hundred roundings in a row grow to about 16 u on average and 64 u for the worst element.
TOLERANCES: Mapping[str, Tolerance] = {
    tolerance.name: tolerance
    for tolerance in (
        Tolerance(name="float64", max_error=2.0**-40, snr_db=235, floor=2.0**-50, source="float32's, 2^-26 below it"),
        Tolerance(
            name="float32", max_error=2.0**-14, snr_db=90, floor=2.0**-21, source="1024 u at most, 512 u on average"
        ),
        Tolerance(name="float16", max_error=2.0**-5, snr_db=42, floor=2.0**-8, source="64 u at most, 16 u on average"),
        Tolerance(name="bfloat16", max_error=2.0**-2, snr_db=24, floor=2.0**-5, source="64 u at most, 16 u on average"),
        Tolerance(name="int8", max_error=1.0, snr_db=8, floor=2.0**-6, source="rules out a broken graph only"),
        Tolerance(name="int4", max_error=1.0, snr_db=4, floor=2.0**-2, source="rules out a broken graph only"),
    )
}


def tolerance_for(*precisions: str) -> Tolerance:
    """The widest tolerance among those of ``precisions``: the coarser of two models decides."""
    known = [TOLERANCES[precision] for precision in precisions if precision in TOLERANCES]
    return max(known or [TOLERANCES["float32"]], key=lambda tolerance: -tolerance.snr_db)


def judge(metrics: OutputMetrics, tolerance: Tolerance, *, ties: int = 0, peak: float = 0.0) -> str | None:
    """Why ``metrics`` do not pass, or None.

    Args:
        ties: how many of the mismatches of an integer output were shown to be ties (:mod:`toolkit.verifier.ties`).
        peak: the output's peak over all cases, where that is known.
    """
    if metrics.shape != metrics.candidate_shape:
        return f"shape {list(metrics.candidate_shape)} instead of {list(metrics.shape)}"
    if not metrics.comparable:
        return f"type {metrics.candidate_dtype} instead of {metrics.dtype}"
    if metrics.nonfinite_mismatches:
        return f"NaN or infinity in {metrics.nonfinite_mismatches} of {metrics.elements} places on one side only"
    if metrics.mismatches > ties:
        return f"{metrics.mismatches - ties} of {metrics.elements} elements differ and are no ties"
    if metrics.max_abs <= tolerance.floor * max(peak, metrics.peak):
        return None
    return _judge_error(metrics, tolerance)


def _judge_error(metrics: OutputMetrics, tolerance: Tolerance) -> str | None:
    allowed = tolerance.max_error * metrics.peak
    if metrics.max_abs > allowed:
        return f"largest error {metrics.max_abs:.3g}, allowed {allowed:.3g} ({tolerance.max_error:.2g} of the peak)"
    if metrics.snr_db < tolerance.snr_db:
        return f"SNR {metrics.snr_db:.1f} dB, at least {tolerance.snr_db:g} dB wanted"
    if tolerance.top1 is not None and metrics.top1_agreement is not None and metrics.top1_agreement < tolerance.top1:
        return f"top-1 agreement {metrics.top1_agreement:.1%}, at least {tolerance.top1:.1%} wanted"
    return None
