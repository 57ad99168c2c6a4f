"""Several calls at the same time onto one session, from threads of one process, as an application makes them.

All streams start together and none stops before each has finished what it is judged by, so that every counted call ran
under the full load. Throughput is what was completed in the time during which all streams were busy, a call that
reaches over its edge counting in part: whole calls alone would be off by up to one per stream and block.

A session may starve a stream as long as others call it; then the others stop after a while, so that it gets its turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import msgspec

from toolkit.profiler.clock import now_ns
from toolkit.tensors import Feeds

STARVED_AFTER = 10
"""Times the duration of a block, after which streams no longer wait for one that gets no turn."""

Call = tuple[int, int]
"""When a call began and when it ended, in nanoseconds."""


class Load(msgspec.Struct, frozen=True):
    """What one block of concurrent calls gave.

    Attributes:
        samples_ns: latencies in the order in which the calls began.
        done: calls completed within the window, in parts where they reach over its edges.
        window_ns: for how long all streams were busy.
        runs: all calls, those that are not counted included.
    """

    samples_ns: list[int]
    done: float
    window_ns: int
    runs: int


class _Block:
    """What the streams of one block share."""

    def __init__(self, streams: int) -> None:
        self.start = threading.Barrier(streams)
        self.over = threading.Event()
        self._missing = streams
        self._lock = threading.Lock()

    def one_is_done(self) -> None:
        with self._lock:
            self._missing -= 1
            if not self._missing:
                self.over.set()

    def abort(self) -> None:
        self.over.set()
        self.start.abort()


@final
class Streams:
    """``count`` threads that call ``run`` with ``feeds`` in turn, each beginning with another set.

    The threads stay between blocks; they sleep there.
    """

    def __init__(self, run: Callable[[Feeds], object], feeds: Sequence[Feeds], count: int) -> None:
        self._run, self._feeds, self._count = run, feeds, count
        self._turns = list(range(count))
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="stream")

    def measure(self, duration_ns: int, *, drop_first: bool) -> Load:
        """Keep all streams busy for ``duration_ns``; with ``drop_first`` each makes a call before that.

        Raises:
            Exception: what the first call that failed raised; the other streams end then too.
        """
        block = _Block(self._count)
        futures = [
            self._pool.submit(self._stream, index, block, duration_ns, drop_first) for index in range(self._count)
        ]
        streams = _results(futures)
        return _load(streams, duration_ns, drop_first)

    def _stream(self, index: int, block: _Block, duration_ns: int, drop_first: bool) -> list[Call]:
        try:
            if drop_first:
                self._run(self._next(index))
            block.start.wait()
            return self._calls(index, block, duration_ns)
        except threading.BrokenBarrierError:
            return []  # another stream failed, and its exception is the one to tell
        except BaseException:
            block.abort()
            raise

    def _calls(self, index: int, block: _Block, duration_ns: int) -> list[Call]:
        run, calls, done = self._run, list[Call](), False
        end = now_ns() + duration_ns
        patience = end + STARVED_AFTER * duration_ns
        while not block.over.is_set():
            feed = self._next(index)
            before = now_ns()
            run(feed)
            after = now_ns()
            calls.append((before, after))
            if not done and after >= end:
                done = True
                block.one_is_done()
            if done and after >= patience:
                break
        return calls

    def _next(self, index: int) -> Feeds:
        self._turns[index] += 1
        return self._feeds[self._turns[index] % len(self._feeds)]

    def close(self) -> None:
        self._pool.shutdown(wait=True)


def _results(futures: Sequence[Future[list[Call]]]) -> list[list[Call]]:
    """What the streams made, once all have ended."""
    failed = [exc for future in futures if (exc := future.exception()) is not None]
    if failed:
        raise failed[0]
    return [future.result() for future in futures]


def _load(streams: Sequence[Sequence[Call]], duration_ns: int, drop_first: bool) -> Load:
    begin = max(calls[0][0] for calls in streams)
    end = min(calls[-1][1] for calls in streams)
    done = sum(_share(call, begin, end) for calls in streams for call in calls)
    counted = sorted(call for calls in streams for call in calls if call[0] < calls[0][0] + duration_ns)
    runs = sum(len(calls) for calls in streams) + drop_first * len(streams)
    return Load([after - before for before, after in counted], done, end - begin, runs)


def _share(call: Call, begin: int, end: int) -> float:
    """Which part of ``call`` lies between ``begin`` and ``end``."""
    before, after = call
    return max(0, min(after, end) - max(before, begin)) / max(1, after - before)
