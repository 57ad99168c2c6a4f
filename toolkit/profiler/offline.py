"""Offline throughput: the batch at which most samples per second come out, found by doubling.

The search runs before the schedule, in a worker of its own: a batch that is too large may cost that process its life,
and then the largest that worked is measured like any other case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import msgspec

from toolkit.profiler.cases import Case, Skipped, label
from toolkit.profiler.interrupts import shielded
from toolkit.profiler.process import CaseEnded, Worker
from toolkit.profiler.protocol import Open, Opened, Tried, Try
from toolkit.profiler.records import ProfileReport
from toolkit.profiler.schedule import OnProgress, Progress

GAIN = 1.05
"""A doubling that gains less than 5 % ends the search."""
LARGEST_BATCH = 1 << 14
LONGEST_CALL_S = 10.0
TRIAL_NS = 150_000_000
USABLE_SHARE = 0.8
_OPEN_TIMEOUT_S = 600.0
_TRIAL_TIMEOUT_S = 60.0


class Search(msgspec.Struct, frozen=True):
    """The outcome: the best batch (None where the case could not even be opened), what was tried, and doubts."""

    batch: int | None
    tried: list[tuple[int, float]] = []
    doubts: list[str] = []


def searched(
    planned: Sequence[Case | Skipped],
    start: Callable[[], Worker],
    available_bytes: int | None,
    on_progress: OnProgress,
    earlier: ProfileReport | None = None,
) -> tuple[list[Case | Skipped], dict[str, Search], bool]:
    """``planned``, offline cases at their best batch; how that was found, by label; whether Ctrl-C ended it.

    What an ``earlier`` report of the same run found is not looked for again.
    """
    known = {record.id: record for record in earlier.cases if record.batches_tried} if earlier else {}
    found: dict[str, Search] = {}
    result = list(planned)
    try:
        for index, case in enumerate(planned):
            if isinstance(case, Skipped) or case.scenario != "offline":
                continue
            name = label(case)
            on_progress(Progress(f"finding the best batch: {name}", 0.0, 0.0))
            record = known.get(name)
            search = Search(record.batch, record.batches_tried) if record else best_batch(case, start, available_bytes)
            found[name] = search
            result[index] = msgspec.structs.replace(case, batch=search.batch or case.batch)
    except KeyboardInterrupt:
        return result, found, True
    return result, found, False


def best_batch(case: Case, start: Callable[[], Worker], available_bytes: int | None) -> Search:
    """Double the batch of ``case`` until that gains too little, takes too long, or memory is short."""
    with shielded():
        worker = start()
    try:
        opened = worker.ask(Open(case), Opened, _OPEN_TIMEOUT_S)
        search = _Doubling(worker, opened, available_bytes)
        return search.run() if opened.free_batch else search.fixed()
    except CaseEnded:
        return Search(None)  # the schedule opens it once more, and tells the same reason beside the case
    finally:
        worker.close()


@final
class _Doubling:
    """One search; ``tried`` grows as it goes."""

    def __init__(self, worker: Worker, opened: Opened, available_bytes: int | None) -> None:
        self._worker, self._opened, self._available_bytes = worker, opened, available_bytes
        self._tried: dict[int, float] = {}
        self._peaks: dict[int, int] = {}

    def fixed(self) -> Search:
        self._try(self._opened.batch)
        return self._result(["the batch is fixed in the model: no other was tried"])

    def run(self) -> Search:
        batch = 1
        self._try(batch)
        while True:
            stop = self._obstacle(2 * batch)
            if stop:
                return self._result([f"the search ended at batch {batch}: {stop}"])
            try:
                self._try(2 * batch)
                if not self._gains(batch):
                    return self._result([])
            except CaseEnded as exc:
                return self._result([f"the search ended at batch {batch}: batch {2 * batch} failed ({exc.reason})"])
            batch *= 2

    def _gains(self, batch: int) -> bool:
        """Whether twice ``batch`` pays; a second look at both before the search is ended by chance."""
        if self._tried[2 * batch] >= GAIN * self._tried[batch]:
            return True
        self._try(batch)
        self._try(2 * batch)
        return self._tried[2 * batch] >= GAIN * self._tried[batch]

    def _try(self, batch: int) -> None:
        expected_s = 20 * batch / self._tried.get(batch // 2, float("inf")) if self._tried else 0.0
        reply = self._worker.ask(Try(batch, TRIAL_NS), Tried, _TRIAL_TIMEOUT_S + expected_s)
        # Whatever else ran meanwhile can only have slowed it: the faster of two looks is nearer to the truth.
        self._tried[batch] = max(self._tried.get(batch, 0.0), reply.samples_per_s)
        self._peaks[batch] = reply.peak_memory_bytes

    def _obstacle(self, batch: int) -> str:
        """Why ``batch`` is not tried; "" where nothing speaks against it."""
        if batch > LARGEST_BATCH:
            return "larger ones are not tried"
        if batch / self._tried[batch // 2] > LONGEST_CALL_S:
            return f"the next call would take more than {LONGEST_CALL_S:.0f} s"
        growth = self._peaks[batch // 2] - self._peaks.get(batch // 4, self._peaks[batch // 2])
        needed = self._peaks[batch // 2] + 2 * growth
        if self._available_bytes is not None and needed > USABLE_SHARE * self._available_bytes:
            return f"memory is short (batch {batch} would take about {needed / 1e9:.1f} GB)"
        return ""

    def _result(self, doubts: list[str]) -> Search:
        best = max(self._tried, key=lambda batch: self._tried[batch])
        return Search(best, sorted(self._tried.items()), doubts)
