"""Is one record faster than another that was measured at another time? Ratios without pairs, with honest intervals.

Nothing cancels here: whatever the machine did in one of the two runs is in the ratio. So each side's uncertainty is
found on its own, the few processes that a run has are allowed for, and differences within ±5 % are never called.

Sources:
    * each side's standard error: bootstrap over processes, then blocks of neighbouring rounds within them, each side
      for itself, as in :mod:`toolkit.profiler.pairing` (Davison and Hinkley, section 3.8; Politis and Romano 1992);
    * few processes: Student's t with the degrees of freedom of Welch (Biometrika 34, 1947) and Satterthwaite (1946),
      processes as the units; a side with one process has none, and no interval;
    * several comparisons: verdicts by Holm's step-down procedure (Scand. J. Statistics 6, 1979), which keeps the chance
      of even one wrong verdict among all at 1 - :data:`CONFIDENCE`. Intervals are each for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from toolkit.profiler.pairing import FEWEST_ROUNDS, Rounds, Verdict, standard_error
from toolkit.profiler.statistics import CONFIDENCE

UNPAIRED_MARGIN = 0.05
"""Differences within ±5 % between runs at different times are never called (docs/decisions/043)."""
_DRAWS = 200_000


class UnpairedRatio(msgspec.Struct, frozen=True):
    """Time of the new record over time of the old one: 0.5 is twice as fast.

    Attributes:
        interval: for this ratio alone; None with too little to tell (see ``reason``).
        p_slower, p_faster: one-sided chances of data like these if it were not slower, or faster, by more than the
            margin; 1 where there is no interval.
        processes: of the old side and the new one.
    """

    ratio: float
    interval: tuple[float, float] | None
    p_slower: float
    p_faster: float
    processes: tuple[int, int]
    reason: str = ""


def unpaired_ratio(
    old: Rounds, new: Rounds, seed: int = 0, *, margin: float = UNPAIRED_MARGIN, family: int = 1
) -> UnpairedRatio | None:
    """Compare logs of block medians, by process, of two records; None when one of them has none.

    Args:
        old, new: log of each block's median time, in the order they were measured, by process.
        margin: how much slower or faster counts. family: how many comparisons the interval holds for.
    """
    sides = [[np.asarray(values, dtype=np.float64) for values in side.values() if len(values)] for side in (old, new)]
    if not all(sides):
        return None
    middles = [float(np.median(np.concatenate(side))) for side in sides]
    ratio, processes = float(np.exp(middles[1] - middles[0])), (len(sides[0]), len(sides[1]))
    reason = _too_little(sides)
    if reason:
        return UnpairedRatio(ratio, None, 1.0, 1.0, processes, reason)
    generator = np.random.default_rng(seed)
    errors = [standard_error(side, generator) for side in sides]
    logs = np.log(ratio) + _student(errors, processes, generator)
    half = (1 - CONFIDENCE) / 2 / family
    low, high = (float(value) for value in np.exp(np.quantile(logs, [half, 1 - half])))
    return UnpairedRatio(
        ratio,
        (low, high),
        p_slower=_share(logs <= np.log1p(margin)),
        p_faster=_share(logs >= np.log1p(-margin)),
        processes=processes,
    )


def _too_little(sides: Sequence[Sequence[npt.NDArray[np.float64]]]) -> str:
    if min(len(side) for side in sides) < 2:
        return "a record of one process cannot tell its luck from the model (--processes 3)"
    rounds = min(sum(map(len, side)) for side in sides)
    return f"{rounds} rounds, {FEWEST_ROUNDS} are needed" if rounds < FEWEST_ROUNDS else ""


def _student(
    errors: Sequence[float], processes: tuple[int, int], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draws of the error of a difference of two means with standard ``errors``, ``(draws,)``."""
    squares = np.square(errors)
    total = float(squares.sum())
    if total == 0:
        return np.zeros(_DRAWS)
    freedom = total**2 / sum(square**2 / (count - 1) for square, count in zip(squares, processes, strict=True))
    draws: npt.NDArray[np.float64] = total**0.5 * generator.standard_t(float(freedom), _DRAWS)
    return draws


def _share(hits: npt.NDArray[np.bool_]) -> float:
    return float((np.count_nonzero(hits) + 1) / (len(hits) + 1))


def verdicts(ratios: Sequence[UnpairedRatio]) -> list[Verdict]:
    """One verdict per ratio, all of them right together with :data:`CONFIDENCE`: Holm's procedure."""
    chances = [2 * min(item.p_slower, item.p_faster) for item in ratios]
    found: list[Verdict] = ["no significant difference"] * len(ratios)
    for rank, index in enumerate(sorted(range(len(ratios)), key=chances.__getitem__)):
        if chances[index] > (1 - CONFIDENCE) / (len(ratios) - rank):
            break
        found[index] = "slower" if ratios[index].p_slower < ratios[index].p_faster else "faster"
    return found
