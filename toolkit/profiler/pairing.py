"""Is one case faster than another? Ratios of cases that took turns, with an interval, and one of three verdicts.

Whatever slows the machine for a while slows both cases of a round, so their ratio keeps still where the latencies
themselves do not. What pairing cannot cancel is luck that a process keeps for its life (where its memory happened to
lie), so rounds come from several processes, and the interval is found by resampling both.

Sources:
    * rounds that resemble their neighbours: circular block bootstrap, Politis and Romano (1992); block length n^(1/3)
      as in Hall, Horowitz and Jing (Biometrika 82, 1995);
    * processes, then rounds within them: Davison and Hinkley, Bootstrap Methods and their Application, section 3.8;
    * several comparisons in one run: intervals hold for all of them together, Dunn, Multiple Comparisons Among Means
      (JASA 56, 1961), through the normal quantiles, since the tails of 4000 resamples are too thin to read there;
    * the settings (99 %, nothing within 1 % counts) were tried on a noisy two-core machine: docs/decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from toolkit.profiler.statistics import CONFIDENCE

Verdict = Literal["faster", "slower", "no significant difference"]
Rounds = Mapping[int, Sequence[float]]
"""Log ratios in the order they were measured, by process."""

MARGIN = 0.01
"""Differences within ±1 % are never called: on a shared machine nobody can tell them from luck."""
FEWEST_ROUNDS = 8
"""With fewer, not even rounds that all agree exclude chance at 99 %: 2 x 0.5^8 is the first below 0.01."""
FEWEST_PROCESSES = 3
"""With fewer, resampling them says next to nothing about the luck of the next one."""
RESAMPLES = 4000


class PairedRatio(msgspec.Struct, frozen=True):
    """Time of the candidate over time of the baseline: 0.5 is twice as fast. ``interval`` None means too few rounds."""

    ratio: float
    interval: tuple[float, float] | None
    verdict: Verdict
    rounds: int
    processes: int


def paired_ratio(rounds: Rounds, seed: int = 0, family: int = 1) -> PairedRatio | None:
    """Compare over ``rounds``; None when the two never took part in the same one.

    Args:
        family: how many comparisons are made; their intervals hold for all of them together.
    """
    series = [np.asarray(values, dtype=np.float64) for values in rounds.values() if len(values)]
    count = sum(len(values) for values in series)
    if count == 0:
        return None
    ratio = float(np.exp(np.median(np.concatenate(series))))
    if count < FEWEST_ROUNDS:
        return PairedRatio(ratio, None, "no significant difference", count, len(series))
    error = (1 - CONFIDENCE) / 2
    medians = _resampled_medians(series, np.random.default_rng(seed))
    middle, ends = np.log(ratio), np.quantile(medians, [error, 1 - error])
    low, high = (float(value) for value in np.exp(middle + _widening(family) * (ends - middle)))
    return PairedRatio(ratio, (low, high), _verdict(low, high), count, len(series))


def _widening(family: int) -> float:
    """How much wider an interval is that holds together with ``family`` - 1 others."""
    error = (1 - CONFIDENCE) / 2
    normal = NormalDist()
    return normal.inv_cdf(1 - error / family) / normal.inv_cdf(1 - error)


def _verdict(low: float, high: float) -> Verdict:
    if high < 1 - MARGIN:
        return "faster"
    return "slower" if low > 1 + MARGIN else "no significant difference"


def _resampled_medians(
    series: Sequence[npt.NDArray[np.float64]], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Medians of :data:`RESAMPLES` sets drawn from ``series``: processes with replacement, then blocks of rounds."""
    lengths = np.array([len(values) for values in series])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    pooled = np.concatenate(series)
    drawn_rounds = round(len(pooled) / len(series))  # of each drawn process, so that long and short ones weigh the same
    block = max(1, round(drawn_rounds ** (1 / 3)))
    within = np.arange(drawn_rounds) % block
    medians = []
    for _ in range(0, RESAMPLES, 250):  # in parts, which keeps the index arrays small
        process = generator.integers(0, len(series), (250, len(series), 1))
        first = generator.random((250, len(series), -(-drawn_rounds // block))) * lengths[process]
        position = np.repeat(first.astype(np.int64), block, axis=2)[..., :drawn_rounds] + within
        index = starts[process] + position % lengths[process]
        medians.append(np.median(pooled[index].reshape(250, -1), axis=1))
    return np.concatenate(medians)


def standard_error(series: Sequence[npt.NDArray[np.float64]], generator: np.random.Generator) -> float:
    """Of the median of all rounds in ``series``, ``(rounds,)`` by process, the luck of two or more processes in it.

    Drawing n processes of n shrinks their variance by (n - 1)/n, which is undone (Davison and Hinkley, section 2.2.2;
    Hesterberg, The American Statistician 69, 2015).
    """
    return float(np.std(_resampled_medians(series, generator)) * np.sqrt(len(series) / (len(series) - 1)))
