"""How cost grows along one variable: latency = overhead + a · variable^b, with an interval on b.

A power law alone, the straight line in log-log axes, is what empirical complexity is usually fitted with, and it is
wrong here: every call costs something however small the work is, and a constant under a power law bends the line, so
that a cost that grows in exact proportion (b = 1) behind 100 µs of overhead would be told as b = 0.4. Three points fix
the curve exactly, so that nothing is left to see whether it fits; the note says so. With threads the cost falls: b = -1
and the overhead is then the serial part of Amdahl's law.

Sources:
    * the power law: Goldsmith, Aiken and Wilkerson, Measuring Empirical Computational Complexity (FSE 2007);
    * overhead and a are linear for a given b, so b alone is searched: variable projection, Golub and Pereyra (1973);
    * errors are relative, as those of latencies are: each point weighs by its inverse;
    * interval: bootstrap over processes, then blocks within them, as in :mod:`toolkit.profiler.pairing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from toolkit.profiler.statistics import CONFIDENCE

Floats = npt.NDArray[np.float64]
Blocks = Mapping[int, Sequence[float]]
"""Median latencies of blocks in nanoseconds, by process."""

FEWEST_POINTS = 3
LEAST_CHANGE = 1.1
"""A cost that changes less than 10 % over the whole sweep has no exponent worth telling."""
RESAMPLES = 1000
# Exponents that are tried. None is within ±0.02, where a power is a constant and cannot be told from the overhead.
_STEP = 0.01
_GRID = np.concatenate([np.arange(-3.0, -0.015, _STEP), np.arange(0.02, 4.005, _STEP)])


class Curve(msgspec.Struct, frozen=True):
    """``latency = overhead_ns + factor_ns · variable^exponent``; without an exponent, ``note`` says why."""

    exponent: float | None
    interval: tuple[float, float] | None
    overhead_ns: float
    factor_ns: float
    note: str


def curve(points: Sequence[tuple[float, Blocks]], seed: int = 0) -> Curve:
    """Fit a cost curve to ``points``, pairs of the variable's value and what was measured there."""
    points = [(value, blocks) for value, blocks in points if any(len(item) for item in blocks.values())]
    values = np.array([value for value, _ in points], dtype=np.float64)
    medians = np.array([_median(blocks) for _, blocks in points])
    if len(set(values)) < FEWEST_POINTS:
        return _none(f"{len(set(values))} points are too few for a cost curve, {FEWEST_POINTS} are needed")
    if medians.max() < LEAST_CHANGE * medians.min():
        return _none(f"the cost changes by {medians.max() / medians.min() - 1:.0%} over the whole sweep: no exponent")
    exponents, overheads, factors = fitted(values, medians[None])
    generator = np.random.default_rng(seed)
    drawn = np.stack([resampled(blocks, generator) for _, blocks in points], axis=1)
    error = (1 - CONFIDENCE) / 2
    low, high = np.quantile(fitted(values, drawn)[0], [error, 1 - error])
    found = float(exponents[0])
    interval = (min(found, float(low)), max(found, float(high)))
    overhead, factor = float(overheads[0]), float(factors[0])
    return Curve(found, interval, overhead, factor, _note(values, overhead))


def _none(note: str) -> Curve:
    return Curve(None, None, 0.0, 0.0, note)


def _note(values: Floats, overhead_ns: float) -> str:
    over = f"fitted over {len(values)} points, {values.min():g} to {values.max():g}"
    exact = " (they fix it exactly: a fourth would show whether it fits)" if len(values) == FEWEST_POINTS else ""
    return f"{over}, beside an overhead of {overhead_ns / 1e3:.3g} µs{exact}"


def _median(blocks: Blocks) -> float:
    return float(np.median(np.concatenate([np.asarray(item) for item in blocks.values()])))


def resampled(blocks: Blocks, generator: np.random.Generator) -> Floats:
    """``(RESAMPLES,)`` medians of ``blocks`` drawn anew: processes with replacement, then blocks within each."""
    series = [np.asarray(item, dtype=np.float64) for item in blocks.values() if len(item)]
    lengths = np.array([len(item) for item in series])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    pooled = np.concatenate(series)
    drawn = max(1, round(len(pooled) / len(series)))
    process = generator.integers(0, len(series), (RESAMPLES, len(series), 1))
    place = (generator.random((RESAMPLES, len(series), drawn)) * lengths[process]).astype(np.int64)
    medians: Floats = np.median(pooled[starts[process] + place].reshape(RESAMPLES, -1), axis=1)
    return medians


def fitted(values: Floats, latencies: Floats) -> tuple[Floats, Floats, Floats]:
    """Exponent, overhead and factor of each row of ``latencies``, ``(rows, points)``; all but the exponent ≥ 0."""
    scaled = values / np.exp(np.mean(np.log(values)))  # keeps large powers small
    best = np.full(len(latencies), np.inf)
    found = np.zeros((3, len(latencies)))
    weights = 1 / latencies
    for exponent in _GRID:
        overhead, factor = _linear(scaled**exponent, weights)
        loss = np.sum(((overhead[:, None] + factor[:, None] * scaled**exponent) * weights - 1) ** 2, axis=1)
        better = loss < best - 1e-15
        best[better] = loss[better]
        found[:, better] = np.stack([np.full_like(overhead, exponent), overhead, factor])[:, better]
    factors = found[2] * (scaled[0] / values[0]) ** found[0]
    return found[0], found[1], factors


def _linear(powers: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Overhead and factor that fit best for given ``powers``, neither below 0: least squares of relative errors."""
    x, one = weights * powers, weights
    xx, x1, oo = np.sum(x * x, 1), np.sum(x * one, 1), np.sum(one * one, 1)
    xs, os = np.sum(x, 1), np.sum(one, 1)
    determinant = xx * oo - x1 * x1
    with np.errstate(divide="ignore", invalid="ignore"):
        factor, overhead = (xs * oo - os * x1) / determinant, (os * xx - xs * x1) / determinant
    inside = (factor >= 0) & (overhead >= 0)
    # Else without an overhead. A factor below 0 belongs to an exponent of the other sign, which is on the grid too.
    factor, overhead = np.where(inside, factor, xs / xx), np.where(inside, overhead, 0.0)
    return overhead, factor
