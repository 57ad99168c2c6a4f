"""From what was seen of a tensor to the range that 8 bits are spent on. All observers read the same histogram."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from toolkit.errors import UsageError
from toolkit.quantizer.calibration.histogram import Distribution
from toolkit.quantizer.choices import OBSERVERS
from toolkit.tensors import nearest
from toolkit.verifier.metrics import decibels

Range = tuple[float, float]
Doubles = npt.NDArray[np.float64]

PERCENTILE = 99.99
"""Share of the values, in percent, that percentile keeps below its upper and above its lower bound."""
LEVELS = 256
_SMALLEST_SHARE = 1e-9  # instead of zero, where a divergence would be infinite
# How far a bound may be drawn in, as parts of the full range, and how finely that is tried.
_SHRINK = tuple(float(part) for part in np.linspace(1.0, 0.2, 49))


def observed_range(seen: Distribution, observer: str, *, symmetric: bool) -> Range:
    """The range that ``observer`` chooses; it always holds zero, and mirrors it where ``symmetric``.

    Raises:
        UsageError: there is no such observer.
    """
    if observer not in OBSERVERS:
        raise UsageError("no such observer", where="--observer", got=observer, expected=nearest(observer, OBSERVERS))
    if not seen.values:
        return 0.0, 0.0
    return _whole(_OBSERVERS[observer](seen, symmetric), symmetric)


def _whole(bounds: Range, symmetric: bool) -> Range:
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    largest = max(-low, high)
    return (-largest, largest) if symmetric else (low, high)


def _minmax(seen: Distribution, symmetric: bool) -> Range:
    return seen.lowest, seen.highest


def _percentile(seen: Distribution, symmetric: bool) -> Range:
    """The bounds that leave out ``100 - PERCENTILE`` percent of the values on each side."""
    total = np.concatenate([[0.0], np.cumsum(seen.counts, dtype=np.float64)])
    edges = (seen.first + np.arange(len(total))) * seen.width
    left_out = total[-1] * (1 - PERCENTILE / 100)
    low, high = np.interp([left_out, total[-1] - left_out], total, edges)
    return max(float(low), seen.lowest), min(float(high), seen.highest)


def _mse(seen: Distribution, symmetric: bool) -> Range:
    return _best(seen, symmetric, _squared_error)


def _entropy(seen: Distribution, symmetric: bool) -> Range:
    return _best(seen, symmetric, _divergence)


def rounding_snr_db(seen: Distribution, bounds: Range) -> float:
    """Power of what was seen over that of the error that 256 levels over ``bounds`` make of it, in decibels."""
    power = float(np.dot(np.square(seen.centres), seen.counts))
    noise = _squared_error(seen, seen.centres, bounds) if bounds[1] > bounds[0] else power
    return decibels(power, noise)


Cost = Callable[[Distribution, Doubles, Range], float]


def _best(seen: Distribution, symmetric: bool, cost: Cost) -> Range:
    """The range with the lowest cost among those drawn in from the extremes: the upper bound first, then the lower."""
    full = _whole((seen.lowest, seen.highest), symmetric)
    centres = seen.centres
    if symmetric:
        return _cheapest(seen, centres, [(full[0] * part, full[1] * part) for part in _SHRINK], cost)
    low, high = _cheapest(seen, centres, [(full[0], full[1] * part) for part in _SHRINK], cost)
    return _cheapest(seen, centres, [(low * part, high) for part in _SHRINK], cost) if low else (low, high)


def _cheapest(seen: Distribution, centres: Doubles, candidates: list[Range], cost: Cost) -> Range:
    costs = [cost(seen, centres, bounds) if bounds[1] > bounds[0] else np.inf for bounds in candidates]
    return candidates[int(np.argmin(costs))]


def _squared_error(seen: Distribution, centres: Doubles, bounds: Range) -> float:
    """Sum over the values of the squared difference that quantizing to ``bounds`` makes."""
    step = (bounds[1] - bounds[0]) / (LEVELS - 1)
    error = np.round(np.clip(centres, *bounds) / step) * step - centres
    return float(np.dot(error * error, seen.counts))


def _divergence(seen: Distribution, centres: Doubles, bounds: Range) -> float:
    """Kullback-Leibler divergence of the quantized from the clipped distribution.

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017; here over any pair of bounds, and with all levels that
    the range has instead of 128.
    """
    step = (bounds[1] - bounds[0]) / (LEVELS - 1)
    inside = (centres >= bounds[0]) & (centres <= bounds[1])
    # Zero is stored exactly whatever the range is, and behind a Relu half of the values are zeros: they say nothing.
    kept = np.where(inside & (seen.first + np.arange(len(centres)) != 0), seen.counts, 0).astype(np.float64)
    where = np.flatnonzero(inside)
    if not where.size or not kept.sum():
        return np.inf
    level = np.round((centres[inside] - bounds[0]) / step).astype(np.int64)
    filled = kept[inside] > 0
    mass = np.bincount(level, kept[inside])
    shared = np.where(filled, mass[level] / np.maximum(1, np.bincount(level, filled))[level], 0.0)
    wanted = kept[inside]
    # What is clipped piles up at the bounds; the quantized distribution, made from what was kept, knows nothing of it.
    wanted[0] += float(seen.counts[: where[0]].sum())
    wanted[-1] += float(seen.counts[where[-1] + 1 :].sum())
    p, q = wanted / wanted.sum(), np.maximum(shared / shared.sum(), _SMALLEST_SHARE)
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


_OBSERVERS: Mapping[str, Callable[[Distribution, bool], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
