"""Whether sharing pays: batches and instances are measured where the model runs, in a second or less."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from toolkit.tensors import Array, Feeds

Run = Callable[[Feeds], Any]

# A call shorter than this is over before another thread has woken up, which takes 10 to 50 µs on Linux.
SHORTEST_S = 50e-6
# A batch must make a row this much quicker, and the whole thing this much more throughput, to be used: less would be
# within the noise of a measurement as short as this.
LEAST_GAIN = 1.15
# Batches whose rows are slower than the quickest by less than this are as good as it, the hand-over of the engine from
# one thread to the next counted, once for each batch.
_STEP = 1.05
_HAND_OVER_S = 100e-6
_CURVE_BUDGET_S = 0.5
_ROUNDS = 20
_ENOUGH = 8
_RACE_BUDGET_S = 0.8
_CALLERS = 16


class Curve(msgspec.Struct, frozen=True):
    """Seconds that a batch takes, by its rows."""

    seconds: dict[int, float]

    def row_s(self, rows: int) -> float:
        return self.seconds[rows] / rows

    @property
    def enough(self) -> int:
        """The smallest batch whose rows are nearly as quick as in any: beyond it there is little to gain."""
        return min(self._good())

    @property
    def most(self) -> int:
        """The largest such batch: beyond it rows get slower, or nothing was measured."""
        return max(self._good())

    def _good(self) -> list[int]:
        costs = {rows: self.row_s(rows) + _HAND_OVER_S / rows for rows in self.seconds}
        return [rows for rows, cost in costs.items() if cost <= _STEP * min(costs.values())]

    @property
    def gain(self) -> float:
        """How many times as quick a row is in a batch."""
        return self.row_s(1) / self.row_s(self.enough)


def batch_curve(run: Run, row: Feeds, axes: Mapping[str, int], most: int, budget_s: float = _CURVE_BUDGET_S) -> Curve:
    """Time batches of 1, 2, 4, … rows, as many sizes as the budget allows; then all of them again until it is spent.

    Sizes take turns and the quickest run of each counts, so that a disturbance does not pick the size. A slow model
    gets the time for a few sizes if the first ones pay.
    """
    end = time.perf_counter() + budget_s
    batches: dict[int, Feeds] = {}
    seconds: dict[int, float] = {}
    rows = 1
    while rows <= most:
        batches[rows] = {name: _times(array, axes.get(name), rows) for name, array in row.items()}
        run(batches[rows])  # warm-up
        seconds[rows] = _seconds(run, batches[rows])
        # The next size takes up to twice as long, and is run twice.
        late = time.perf_counter() + 4 * seconds[rows] > end
        gained = rows == 1 or seconds[rows] / rows * _STEP < seconds[1]
        if seconds[1] < SHORTEST_S or (late and (rows >= _ENOUGH or not gained)):
            break
        rows *= 2
    for _ in range(_ROUNDS):
        for rows, feeds in batches.items():
            if time.perf_counter() + seconds[rows] < end:
                seconds[rows] = min(seconds[rows], _seconds(run, feeds))
    return Curve(seconds)


def _times(array: Array, axis: int | None, rows: int) -> Array:
    return array if axis is None or rows == 1 else np.repeat(array, rows, axis)


def _seconds(run: Run, feeds: Feeds) -> float:
    start = time.perf_counter()
    run(feeds)
    return time.perf_counter() - start


def throughputs(runs: Mapping[str, Run], feeds: Feeds, call_s: float) -> dict[str, float]:
    """Calls per second of each of ``runs`` under concurrent callers; they take turns, so that drift hits all alike.

    Args:
        call_s: how long one call takes alone.
    """
    slice_s = min(_RACE_BUDGET_S / (2 * len(runs)), max(0.02, 2 * _CALLERS * call_s))
    totals = dict.fromkeys(runs, 0.0)
    for _ in range(2):
        for name, run in runs.items():
            totals[name] += _throughput(run, feeds, slice_s) / 2
    return totals


def _throughput(run: Run, feeds: Feeds, duration_s: float) -> float:
    counts = [0] * _CALLERS
    begin = time.perf_counter()
    end = begin + duration_s

    def calling(index: int) -> None:
        while time.perf_counter() < end:
            run(feeds)
            counts[index] += 1

    threads = [threading.Thread(target=calling, args=(index,)) for index in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)
