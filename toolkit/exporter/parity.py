"""Whether a graph computes what a module computes: errors against float64, held against torch's own rounding.

Reference is the module in float64. Its own precision's error against that is the noise floor: how far from the truth
the very same computation lands when only rounding differs. The graph's error may be a small multiple of it, and 4 ulp
of the output's magnitude where the floor is lower. Three statistics have to hold, each against the same statistic of
the noise and of the reference: the largest, the root mean square, and the root mean square in each slice along the
last and the second axis, so that large values in one place do not hide errors in another.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from toolkit.tensors import Array
from toolkit.verifier.metrics import is_float

# Engines sum in another order and use other polynomials for exp, erf and tanh than torch.
MULTIPLE = 8.0
FLOOR_ULP = 4.0
# Jittered runs (toolkit.exporter.rounding) can amplify themselves; more than this part of the magnitude never passes.
_JITTER_LIMIT_ULP = 2.0**13
# A slice of fewer elements says nothing.
_SLICE_ELEMENTS = 3
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

Doubles = npt.NDArray[np.float64]


class OutputParity(msgspec.Struct, frozen=True):
    """One output in one case.

    Attributes:
        error: largest error of the graph against the reference.
        noise: largest error of torch in the module's own precision.
        ratio: the error as a part of what is allowed, the worst of all statistics; above 1 fails.
        failure: why it does not pass; empty when it does.
    """

    name: str
    error: float = 0.0
    noise: float = 0.0
    ratio: float = 0.0
    failure: str = ""


class Rule(msgspec.Struct, frozen=True):
    """What is allowed.

    Attributes:
        ulp: in any case, as units in the last place of the output's magnitude.
        dtype: the precision these are counted in; that of the module's answer unless given.
        usual: a usual answer of this output: its magnitude counts where a case's own is smaller.
        jittered: whether the module's own answer comes from jittered runs.
    """

    ulp: float = FLOOR_ULP
    dtype: str = ""
    usual: Array | None = None
    jittered: bool = False


def compare(name: str, reference: Array, own: Array, got: Array, rule: Rule | None = None) -> OutputParity:
    """Judge one output.

    Args:
        reference: the module in float64.
        own: the module in its own precision.
        got: the graph.
    """
    if got.shape != own.shape:
        return OutputParity(name, failure=f"shape {list(got.shape)} instead of {list(own.shape)}")
    if is_float(own.dtype.name) != is_float(got.dtype.name):
        return OutputParity(name, failure=f"type {got.dtype.name} instead of {own.dtype.name}")
    if not is_float(own.dtype.name):
        # Where torch itself decides differently in float64 the decision is a tie.
        count = int(np.count_nonzero((got != own) & (own == reference)))
        return OutputParity(name, failure=f"{count} of {own.size} elements differ" if count else "")
    return _Floats(name, reference, own, got, rule or Rule()).judge()


class _Floats:
    """One comparison of float outputs."""

    def __init__(self, name: str, reference: Array, own: Array, got: Array, rule: Rule) -> None:
        self._name = name
        exact, rounded, answered = (_doubles(array) for array in (reference, own, got))
        self._finite = np.isfinite(exact) & np.isfinite(rounded)
        odd = ~self._finite & ~_same(rounded, answered) & ~_same(exact, answered)
        self._odd = int(np.count_nonzero(odd | (self._finite & ~np.isfinite(answered))))
        keep = self._finite & np.isfinite(answered)
        self._error, self._noise, self._magnitude = (
            np.where(keep, np.abs(values), 0.0) for values in (_minus(answered, exact), _minus(rounded, exact), exact)
        )
        usual = np.zeros(exact.shape) if rule.usual is None else np.abs(_doubles(rule.usual))
        self._usual = np.where(np.isfinite(usual), usual, 0.0)
        self._unit = _EPSILON[rule.dtype or str(own.real.dtype.name)]
        self._rule = rule
        self._worst, self._failure = 0.0, ""

    def judge(self) -> OutputParity:
        if self._odd:
            return OutputParity(
                self._name, failure=f"NaN or infinity differs in {self._odd} of {self._error.size} places"
            )
        if not self._error.size:
            return OutputParity(self._name)
        for label, statistic in (("largest error", _largest), ("mean error", _rms)):
            error, noise, magnitude = (statistic(item) for item in (self._error, self._noise, self._magnitude))
            self._note(label, error, noise, max(magnitude, statistic(self._usual)))
        for axis, *slices in self._slices():
            self._note_slices(axis, *slices)
        return OutputParity(self._name, _largest(self._error), _largest(self._noise), self._worst, self._failure)

    def _allowed(self, noise: float, magnitude: float) -> float:
        # Probabilities that vanish are known to a few units of 1, not of themselves.
        limit = self._unit * max(_JITTER_LIMIT_ULP * magnitude, FLOOR_ULP) if self._rule.jittered else np.inf
        return max(min(MULTIPLE * noise, limit), self._rule.ulp * self._unit * magnitude)

    def _note(self, label: str, error: float, noise: float, magnitude: float) -> None:
        if error == 0.0:
            return
        allowed = self._allowed(noise, magnitude)
        ratio = error / allowed if allowed > 0.0 else np.inf
        if ratio > max(1.0, self._worst):
            self._failure = f"{label} {error:.2g}, torch's own {noise:.2g}, allowed {allowed:.2g}"
        self._worst = max(self._worst, float(ratio))

    def _slices(self) -> Iterator[tuple[int, Doubles, Doubles, Doubles]]:
        """Root mean squares of error, noise and magnitude, for each index of the last and of the second axis."""
        rank = self._error.ndim
        for axis in sorted({1, rank - 1} if rank > 1 else ()):
            others = tuple(place for place in range(rank) if place != axis)
            if self._error.size // self._error.shape[axis] >= _SLICE_ELEMENTS and self._error.shape[axis] > 1:
                magnitude, usual = _rms_over(self._magnitude, others), _rms_over(self._usual, others)
                # At another size the slices are others; small ones stand for them.
                usual = usual if usual.shape == magnitude.shape else np.full(1, np.quantile(usual, 0.25))
                yield axis, _rms_over(self._error, others), _rms_over(self._noise, others), np.maximum(magnitude, usual)

    def _note_slices(self, axis: int, error: Doubles, noise: Doubles, magnitude: Doubles) -> None:
        # Slices that happen to be almost zero are measured against what small slices usually are.
        floor = float(np.quantile(magnitude, 0.25))
        worst = int(np.argmax(error / (MULTIPLE * noise + self._unit * np.maximum(magnitude, floor) + 1e-300)))
        label = f"mean error at index {worst} of axis {axis}"
        self._note(label, float(error[worst]), float(noise[worst]), max(float(magnitude[worst]), floor))


def _doubles(array: Array) -> Doubles:
    if array.dtype.kind == "c":
        array = np.ascontiguousarray(array).view(array.real.dtype)
    return array.astype(np.float64)


def _minus(one: Doubles, other: Doubles) -> Doubles:
    with np.errstate(invalid="ignore"):
        return np.asarray(one - other)


def _largest(values: Doubles) -> float:
    return float(values.max(initial=0.0))


def _rms(values: Doubles) -> float:
    return float(np.sqrt(np.mean(values * values))) if values.size else 0.0


def _rms_over(values: Doubles, axes: tuple[int, ...]) -> Doubles:
    return np.asarray(np.sqrt(np.mean(values * values, axis=axes)))


def _same(one: Doubles, other: Doubles) -> npt.NDArray[np.bool_]:
    return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))
