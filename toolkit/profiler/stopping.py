"""When enough has been measured: the intervals are as narrow as was asked for.

Looking at an interval again and again and stopping when it is narrow does not make it wrong the way looking at a
verdict would: its width says little about where it lies. Source: Chow and Robbins, On the asymptotic theory of
fixed-width sequential confidence intervals (Annals of Mathematical Statistics 36, 1965).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import final

import numpy as np

from toolkit.profiler.assembly import comparisons
from toolkit.profiler.schedule import Course, Turn
from toolkit.profiler.statistics import PERCENTILES, percentile

_MEDIAN = PERCENTILES["p50"]


@final
class Narrow:
    """Asks whether intervals are narrow.

    Args:
        width: of an interval from end to end, as a share of the value in it.
        processes: how many processes a case is measured in at least; one of them alone may stop at an interval that
            is as much wider as it has fewer samples than all of them.
        baseline, seed: of the comparisons, whose intervals have to be narrow too.
    """

    def __init__(self, width: float, processes: int, baseline: str, seed: int) -> None:
        self._width, self._processes, self._baseline, self._seed = width, processes, baseline, seed

    def in_process(self, courses: Sequence[Course], process: int) -> bool:
        """Whether this process has done its part for every case that is still measured."""
        width = self._width * math.sqrt(self._processes)
        parts = [[turn for turn in course.turns if turn.process == process] for course in _going(courses)]
        return all(_narrow_median(turns, width) for turns in parts)

    def in_run(self, courses: Sequence[Course]) -> bool:
        """Whether the medians of all cases and the ratios of all comparisons are known well enough."""
        if not all(_narrow_median(course.turns, self._width) for course in _going(courses)):
            return False
        found = comparisons(courses, self._baseline, self._seed)
        return all(item.ratio_ci is not None and _narrow(item.ratio, item.ratio_ci, self._width) for item in found)


def _going(courses: Iterable[Course]) -> list[Course]:
    return [course for course in courses if course.ended is None]


def _narrow_median(turns: Sequence[Turn], width: float) -> bool:
    if not turns:
        return False
    found = percentile([np.asarray(turn.samples_ns, dtype=np.int64) for turn in turns], _MEDIAN)
    return found.value is not None and found.interval is not None and _narrow(found.value, found.interval, width)


def _narrow(value: float, interval: tuple[float, float], width: float) -> bool:
    return interval[1] - interval[0] <= width * value
