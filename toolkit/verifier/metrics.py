"""How far two arrays are apart. Numbers only; :mod:`toolkit.verifier.tolerances` judges them.

All arithmetic is float64 and goes block by block, so that comparing two outputs costs no third one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from toolkit.tensors import FLOATS, Array

Doubles = npt.NDArray[np.float64]
_BLOCK = 1 << 20
# The relative error of an element that cancelled to almost nothing says nothing: those below this part of the peak are
# left out.
_RELATIVE_FLOOR = 1e-3


class OutputMetrics(msgspec.Struct, frozen=True):
    """One output, compared.

    Attributes:
        mismatches: elements of integer, boolean and text outputs that differ.
        nonfinite_mismatches: places where one side has a NaN or an infinity and the other does not have the same.
        peak: largest finite magnitude of the reference.
        max_abs: largest absolute error.
        max_rel: largest error relative to the element, over elements of at least 1/1000 of the peak.
        rms: root of the mean squared error.
        cosine: cosine of the angle between both as vectors; 1.0 where both are zero.
        snr_db: power of the reference over power of the error, in decibels; infinite where they are equal.
        top1_agreement: part of the rows (last axis, rank 2 and 3) whose largest element is the same one, None
            elsewhere; a row whose reference scores tie counts as agreeing.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    candidate_dtype: str
    candidate_shape: tuple[int, ...]
    elements: int = 0
    mismatches: int = 0
    nonfinite_mismatches: int = 0
    peak: float = 0.0
    max_abs: float = 0.0
    max_rel: float = 0.0
    rms: float = 0.0
    cosine: float = 1.0
    snr_db: float = math.inf
    top1_agreement: float | None = None

    @property
    def comparable(self) -> bool:
        return self.shape == self.candidate_shape and is_float(self.dtype) == is_float(self.candidate_dtype)

    @property
    def is_float(self) -> bool:
        return is_float(self.dtype)


def is_float(dtype: str) -> bool:
    return dtype in FLOATS or dtype.startswith("complex")


def compare_arrays(reference: Array, candidate: Array, name: str = "") -> OutputMetrics:
    """Compare ``candidate`` with ``reference``; arrays of another shape or kind are described, not compared."""
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    metrics = OutputMetrics(name, _name(reference), reference.shape, _name(candidate), candidate.shape, reference.size)
    if not metrics.comparable:
        return metrics
    if not metrics.is_float:
        return msgspec.structs.replace(metrics, mismatches=int(np.count_nonzero(reference != candidate)))
    return _compare_floats(metrics, reference, candidate)


def _name(array: Array) -> str:
    return "string" if array.dtype.kind in "OUST" else array.dtype.name


def _compare_floats(metrics: OutputMetrics, reference: Array, candidate: Array) -> OutputMetrics:
    peak = max((_largest(block[np.isfinite(block)]) for block in _blocks(reference)), default=0.0)
    nonfinite, power, other, product, squared, max_abs, max_rel = 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for wanted, got in zip(_blocks(reference), _blocks(candidate), strict=True):
        finite = np.isfinite(wanted) & np.isfinite(got)
        nonfinite += int(np.count_nonzero(~finite & ~_same(wanted, got)))
        wanted, got = wanted[finite], got[finite]
        error = np.abs(got - wanted)
        power += float(wanted @ wanted)
        other += float(got @ got)
        product += float(wanted @ got)
        squared += float(error @ error)
        max_abs = max(max_abs, _largest(error))
        firm = np.abs(wanted) >= max(peak * _RELATIVE_FLOOR, np.finfo(np.float64).tiny)
        max_rel = max(max_rel, _largest(error[firm] / np.abs(wanted[firm])))
    return msgspec.structs.replace(
        metrics,
        nonfinite_mismatches=nonfinite,
        peak=peak,
        max_abs=max_abs,
        max_rel=max_rel,
        rms=math.sqrt(squared / max(1, reference.size)),
        cosine=_cosine(power, other, product),
        snr_db=decibels(power, squared),
        top1_agreement=_top1(reference, candidate),
    )


def _blocks(array: Array) -> Iterator[Doubles]:
    """``array`` as flat float64 blocks; a complex number is two elements."""
    if array.dtype.kind == "c":
        array = np.ascontiguousarray(array).view(array.real.dtype)
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK].astype(np.float64)


def _largest(values: Doubles) -> float:
    return float(np.abs(values).max()) if values.size else 0.0


def _same(wanted: Doubles, got: Doubles) -> npt.NDArray[np.bool_]:
    return np.asarray((wanted == got) | (np.isnan(wanted) & np.isnan(got)))


def _cosine(power: float, other: float, product: float) -> float:
    if power == 0.0 or other == 0.0:
        return 1.0 if power == other else 0.0
    return product / math.sqrt(power * other)


def decibels(power: float, noise: float) -> float:
    """Signal power over noise power in decibels."""
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(power / noise) if power > 0.0 else -math.inf


def _top1(reference: Array, candidate: Array) -> float | None:
    """Part of the rows with the same largest element; None where the output has no rows of scores."""
    if reference.ndim not in (2, 3) or reference.shape[-1] < 2 or reference.size == 0 or reference.dtype.kind == "c":
        return None
    wanted = reference.reshape(-1, reference.shape[-1]).astype(np.float64)
    chosen = candidate.reshape(wanted.shape).argmax(-1)[:, None]
    return float(np.mean(np.take_along_axis(wanted, chosen, -1)[:, 0] >= wanted.max(-1)))
