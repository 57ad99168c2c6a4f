"""What is wrong with a series of latencies, in plain words beside the number, so that nobody has to plot it.

Each check looks for one thing and answers a sentence or nothing. The limits are judgement: they are set where the
sentence would change what a reader does, and high enough that a quiet series draws none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from toolkit.profiler.clock import reading_cost_ns
from toolkit.profiler.statistics import Percentile, Samples

DRIFT = 0.05
SPREAD_OF_PROCESSES = 0.05
SLOW_CALL = 2.0
SLOW_SHARE = 0.01
WIDE_INTERVAL = 0.05
READINGS_PER_SAMPLE = 20
FEWEST_SAMPLES = 30
# A mode counts when it holds a tenth of the samples and the valley before it is less than half as high.
MODE_SHARE = 0.1
MODE_DISTANCE = 0.1
VALLEY = 0.5


class Series(msgspec.Struct, frozen=True):
    """Blocks of one case in the order they were measured, each ``(n,) int64`` nanoseconds, and the process of each."""

    blocks: tuple[Samples, ...]
    processes: tuple[int, ...]
    median: Percentile


def doubts(series: Series) -> tuple[str, ...]:
    """Every reason there is to read ``series`` with care."""
    if not series.blocks:
        return ()
    return tuple(text for check in _CHECKS if (text := check(series)))


def _few(series: Series) -> str:
    count = sum(len(block) for block in series.blocks)
    return "very few samples (give it more --budget)" if count < FEWEST_SAMPLES else ""


def _coarse(series: Series) -> str:
    cost = reading_cost_ns()
    if series.median.value is None or series.median.value >= READINGS_PER_SAMPLE * cost:
        return ""
    return f"too short for this clock, which takes {cost} ns to read"


def _wide(series: Series) -> str:
    value, interval = series.median.value, series.median.interval
    if value is None or interval is None or interval[1] - interval[0] <= 2 * WIDE_INTERVAL * value:
        return ""
    return f"noisy (the median is known to {_percent(interval[0], value)}, {_percent(interval[1], value)})"


def _drifting(series: Series) -> str:
    """Compare the first third of the blocks with the last, in units of their own scatter."""
    medians = _medians(series.blocks)
    third = len(medians) // 3
    if third < 4:
        return ""
    first, last = medians[:third], medians[-third:]
    change = float(np.median(last) / np.median(first) - 1)
    scatter = (_spread(first) + _spread(last)) / np.sqrt(third)
    if abs(change) <= DRIFT or abs(np.median(last) - np.median(first)) <= 3 * scatter:
        return ""
    return f"drifted by {change:+.0%} from the first to the last third of the run"


def _uneven_processes(series: Series) -> str:
    medians = {
        process: float(
            np.median(_medians([b for b, p in zip(series.blocks, series.processes, strict=True) if p == process]))
        )
        for process in sorted(set(series.processes))
    }
    slowest, fastest = max(medians.values()), min(medians.values())
    if slowest <= fastest * (1 + SPREAD_OF_PROCESSES):
        return ""
    return f"the slowest of its {len(medians)} processes took {slowest / fastest - 1:.0%} longer than the fastest"


def _bimodal(series: Series) -> str:
    """Look for two humps in a smoothed histogram of the samples, blocks weighing the same."""
    samples = np.sort(np.concatenate(series.blocks).astype(np.float64))
    if len(samples) < 200:
        return ""
    inner = np.log(samples[len(samples) // 100 : -max(1, len(samples) // 100)])
    if inner[-1] - inner[0] < MODE_DISTANCE:
        return ""
    counts, edges = np.histogram(inner, bins=30)
    smooth = np.convolve(counts, [0.25, 0.5, 0.25], mode="same")
    split = _valley(smooth)
    if split is None:
        return ""
    low, high = (float(np.exp(np.median(part))) for part in (inner[inner < edges[split]], inner[inner >= edges[split]]))
    if high < low * (1 + MODE_DISTANCE):
        return ""
    share = float(np.mean(inner >= edges[split]))
    return f"two modes ({1 - share:.0%} of calls about {_duration(low)}, {share:.0%} about {_duration(high)})"


def _valley(heights: npt.NDArray[np.float64]) -> int | None:
    """The bin that best parts ``heights`` into two humps, or None when there is but one."""
    total, best = heights.sum(), None
    for index in range(1, len(heights) - 1):
        left, right = heights[:index], heights[index:]
        if min(left.sum(), right.sum()) < MODE_SHARE * total:
            continue
        depth = heights[index] / min(left.max(), right.max())
        if depth < VALLEY and (best is None or depth < best[0]):
            best = (depth, index)
    return None if best is None else best[1]


def _slow_calls(series: Series) -> str:
    samples = np.concatenate(series.blocks)
    share = float(np.mean(samples > SLOW_CALL * np.median(samples)))
    return f"{share:.1%} of calls took over twice the median" if share > SLOW_SHARE else ""


_CHECKS: tuple[Callable[[Series], str], ...] = (
    _few, _coarse, _wide, _drifting, _uneven_processes, _bimodal, _slow_calls,
)  # fmt: skip


def _medians(blocks: Sequence[Samples]) -> npt.NDArray[np.float64]:
    return np.array([float(np.median(block)) for block in blocks])


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Standard deviation as the interquartile range tells it, which outliers do not move."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) / 1.349


def _percent(bound: int, value: int) -> str:
    return f"{bound / value - 1:+.0%}"


def _duration(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"
