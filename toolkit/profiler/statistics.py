"""Percentiles of latencies with intervals that assume no distribution, and the rule for having too few samples.

Sources:
    * intervals between order statistics: David and Nagaraja, Order Statistics, 3rd edition, section 7.1;
    * samples that come in blocks: the design effect of Kish, Survey Sampling (1965), applied to the share of samples
      below the percentile as in Woodruff, Confidence Intervals for Medians (JASA 47, 1952);
    * too few samples: MLPerf early stopping, loadgen/early_stopping.cc and the appendix of inference_rules.adoc,
      confidence 0.99, tolerance 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]

CONFIDENCE = 0.99
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


class Percentile(msgspec.Struct, frozen=True):
    """A percentile of latencies in nanoseconds.

    Attributes:
        value: the smallest sample that at least this share of samples does not exceed; None when withheld.
        interval: bounds on the true percentile at :data:`CONFIDENCE`; None where so few samples have none.
        withheld: why there is no value; "" where there is one.
    """

    value: int | None
    interval: tuple[int, int] | None
    withheld: str = ""


def percentile(blocks: Sequence[Samples], share: float) -> Percentile:
    """The percentile ``share`` (0.99 for p99) of samples taken in ``blocks``, each ``(n,) int64`` in nanoseconds.

    A median is given from one sample on; a percentile in the tail is withheld until early stopping would accept it.
    """
    samples = np.sort(np.concatenate([np.asarray(block) for block in blocks]))
    count, needed = len(samples), needed_samples(share)
    if count == 0:
        return Percentile(None, None, "no samples")
    if share > 0.5 and count < needed:
        return Percentile(None, None, f"{count} sample{'s' * (count > 1)}, {needed - count} more are needed")
    value = int(samples[math.ceil(share * count) - 1])
    ranks = _interval_ranks(effective_count(blocks, share, value), share)
    if ranks is None:
        return Percentile(value, None)
    low, high = (min(count - 1, max(0, round(rank * count) - 1)) for rank in ranks)
    return Percentile(value, (min(value, int(samples[low])), max(value, int(samples[high]))))


def jitter(samples: Samples) -> float | None:
    """Interquartile range over the median of ``samples``, ``(n,)``; None for fewer than four."""
    if len(samples) < 4:
        return None
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float((high - low) / middle) if middle else None


def effective_count(blocks: Sequence[Samples], share: float, value: int) -> int:
    """How many independent samples the samples in ``blocks`` are worth for judging the percentile ``share``.

    Samples of one block resemble each other, since whatever slowed one call slowed its neighbours; an interval that
    took them for independent would be far too narrow. The design effect is the variance between blocks of the share
    of samples up to ``value``, over the variance that independent samples would have.
    """
    counts = np.array([len(block) for block in blocks if len(block)])
    total = int(counts.sum())
    if len(counts) < 2:
        return total
    below = np.array([np.count_nonzero(np.asarray(block) <= value) for block in blocks if len(block)])
    overall = below.sum() / total
    between = len(counts) / (len(counts) - 1) * float(np.sum((below - overall * counts) ** 2)) / total**2
    independent = share * (1 - share) / total
    return max(1, int(total / max(1.0, between / independent)))


@cache
def _interval_ranks(count: int, share: float) -> tuple[float, float] | None:
    """Ranks, as shares of ``count``, of the order statistics that enclose the percentile; None with too few samples.

    The true percentile lies below the sample of rank k with the chance that fewer than k of ``count`` samples fall
    below it. Half of the error is allowed on each side.
    """
    error = (1 - CONFIDENCE) / 2
    tail = binomial_cdf(count, share)
    low = int(np.searchsorted(tail, error, side="right"))  # largest k with P(fewer than k) <= error
    high = int(np.searchsorted(tail, 1 - error, side="left")) + 1  # smallest k with P(fewer than k) >= 1 - error
    if low < 1 or high > count:
        return None
    return low / count, high / count


def binomial_cdf(count: int, share: float) -> npt.NDArray[np.float64]:
    """``P(X <= k)`` for k = 0…count and X ~ Binomial(count, share), through logarithms so that no factor underflows."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    k = np.arange(count + 1)
    logs = factorials[count] - factorials[k] - factorials[count - k]
    logs += k * math.log(share) + (count - k) * math.log1p(-share)
    cumulated: npt.NDArray[np.float64] = np.minimum(1.0, np.cumsum(np.exp(logs)))
    return cumulated


@cache
def needed_samples(share: float) -> int:
    """The fewest samples from which MLPerf's early stopping gives percentile ``share``: 64 for p90, 662 for p99.

    It is the smallest n for which at most one sample above the true percentile is less likely than 1 - confidence.
    """

    def unlikely(n: int) -> bool:
        return share**n + n * (1 - share) * share ** (n - 1) <= 1 - CONFIDENCE

    high = 2
    while not unlikely(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if unlikely(middle) else (middle, high)
    return high
