"""Concurrent calls share batches and engines; a caller that is alone goes straight through.

The pattern is combining, also called leader and followers: a call that finds a free engine runs in its own thread. The
others wait. When an engine gets free, the call that has waited longest takes it, and with it everything that waits and
fits into one batch; it runs that in its own thread and hands the engine on. So no thread stands between caller and
engine, a lone caller waits for nobody, and batches grow with the load by themselves.

Callers that were answered together tend to call again together. The first to come back would run alone, and the others
wait for it; so for a moment after a batch, a tenth of the time that it took, it is given the chance to be whole again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import msgspec

import toolkit.machine as machine
from toolkit.errors import EngineError, Overloaded, TimedOut, UsageError
from toolkit.providers.session import Engine, Execution
from toolkit.runtime.calls import Call, Layout
from toolkit.tensors import Array, Feeds

# How long a batch's callers are given to come back, as a part of the time that it took.
_RETURN = 0.1


class Batching(msgspec.Struct, frozen=True, kw_only=True):
    """How calls share batches.

    Attributes:
        max_size: rows of the largest batch.
        max_delay_s: how long a call that had to wait for the engine may be kept longer for others to join it. A call
            that finds the engine free never waits.
        queue: calls that may wait; more are refused with :class:`toolkit.errors.Overloaded`.
        timeout_s: how long a call may take from its arrival; later it raises :class:`toolkit.errors.TimedOut`, and does
            not run if it has not begun. A call cannot be interrupted while its own thread runs the batch.
    """

    max_size: int = 32
    max_delay_s: float = 0.0
    queue: int = 1024
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.queue < 0 or self.max_delay_s < 0 or (self.timeout_s or 0) < 0:
            raise UsageError("batching takes sizes and times that are not negative", got=self)


@final
class BatchingEngine:
    """One or several engines that serve many callers.

    Args:
        engines: of the same model; one that runs several calls at a time may be given several times.
        layout: the axes that count rows; without any, calls share engines but no batches.
        settings: size of batches and queue, delay, timeout.
        room: rows that a batch may have, by the elements of one row. Where that is one or none, calls do not wait in
            the queue but go to the engine as they come, unless there are several.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        layout: Layout,
        settings: Batching | None = None,
        room: Callable[[int], int] | None = None,
    ) -> None:
        self.inputs, self.outputs = engines[0].inputs, engines[0].outputs
        self._engines, self._layout, self._settings = tuple(engines), layout, settings or Batching()
        self._room = room
        self._most = self._settings.max_size if layout.inputs else 1
        self._free = list(engines)
        self._waiting: deque[Call] = deque()
        self._direct = 0
        # Of the last batch: its calls, its end, and until when they may come back.
        self._crowd, self._crowd_end, self._crowd_until = 0, 0.0, 0.0
        self._missing = 0  # calls that a leader waits for
        self._closing = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._workers: ThreadPoolExecutor | None = None

    @property
    def engines(self) -> tuple[Engine, ...]:
        """One for each call or batch that runs at a time."""
        return self._engines

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run now if an engine is free, else together with others that wait.

        Raises:
            Overloaded, TimedOut: see :class:`Batching`.
            UsageError: the session is closed.
        """
        with self._lock:
            busy = self._waiting or self._closing or not self._free or self._is_crowded()
            engine = None if busy else self._free.pop()
        if engine is not None:
            try:
                return engine.run(feeds)
            finally:
                self._hand_on(engine)
        call = self._call(feeds, None)
        if call is None:
            return self._run_beside(feeds)
        engine = self._join(call)
        if engine is None:
            self._wait(call)
        else:
            call.engine, call.state = engine, "leading"
        if call.state == "leading":
            self._lead(call)
        return call.result()

    def submit(self, feeds: Feeds) -> Future[dict[str, Array]]:
        """Like :meth:`run` in another thread; cancelling the future before its turn takes the call out of the queue."""
        future: Future[dict[str, Array]] = Future()
        call = self._call(feeds, future)
        if call is None:
            return self._submit_beside(feeds)
        engine = self._join(call)
        if engine is None:
            future.add_done_callback(lambda done: self._leave(call) if done.cancelled() else None)
        else:
            future.set_running_or_notify_cancel()
            call.engine, call.state = engine, "leading"
            self._pool().submit(self._lead, call)
        return future

    def _call(self, feeds: Feeds, future: Future[dict[str, Array]] | None) -> Call | None:
        """A call, or None for one that no batch would make quicker."""
        key, rows, elements = self._layout.describe(feeds)
        room = self._most if self._room is None else min(self._most, self._room(elements))
        if room <= 1 and self._room is not None and len(self._engines) == 1:
            return None
        if rows == 0 or rows >= room:
            key = object()  # alone
        return Call(feeds, key, rows, room, future)

    def _run_beside(self, feeds: Feeds) -> dict[str, Array]:
        with self._lock:
            self._check_open()
            self._direct += 1
        try:
            return self._engines[0].run(feeds)
        finally:
            self._ended_beside()

    def _submit_beside(self, feeds: Feeds) -> Future[dict[str, Array]]:
        with self._lock:
            self._check_open()
            self._check_queue(self._direct)
            self._direct += 1
        future = self._pool().submit(self._engines[0].run, feeds)
        future.add_done_callback(lambda _: self._ended_beside())
        return future

    def _ended_beside(self) -> None:
        with self._lock:
            self._direct -= 1
            if self._closing:
                self._changed.notify_all()

    # The queue. Whoever finishes hands its engine to the call that has waited longest, so an engine is free only while
    # nobody waits.

    def _join(self, call: Call) -> Engine | None:
        """An engine that got free meanwhile, or None once the call stands in the queue."""
        with self._lock:
            self._check_open()
            if self._free and not self._waiting:
                return self._free.pop()
            self._check_queue(len(self._waiting))
            self._waiting.append(call)
            if self._missing and len(self._waiting) >= self._missing:
                self._changed.notify_all()
            return None

    def _check_open(self) -> None:
        if self._closing:
            raise UsageError("this session is closed", next_step="open the model again with toolkit.load")

    def _check_queue(self, waiting: int) -> None:
        if waiting >= self._settings.queue:
            raise Overloaded(
                "too many calls wait for the engine",
                got=f"{waiting} waiting",
                expected=f"at most {self._settings.queue}",
                next_step="call again later, or allow a longer queue with Batching(queue=…)",
            )

    def _hand_on(self, engine: Engine, back: Sequence[Call] = ()) -> None:
        """Give ``engine`` to the call that has waited longest; ``back`` are calls that were taken and not run."""
        with self._lock:
            for call in reversed(back):
                call.state = "waiting"
                self._waiting.appendleft(call)
            heir = self._heir()
            if heir is None:
                self._free.append(engine)
            else:
                heir.engine, heir.state = engine, "leading"
            if self._closing:
                self._changed.notify_all()
        if heir is not None:
            if heir.future is None:
                heir.wake.release()
            else:
                self._pool().submit(self._lead, heir)

    def _heir(self) -> Call | None:
        while self._waiting:
            call = self._waiting.popleft()
            if call.begins():
                return call
        return None

    def _left_s(self, call: Call) -> float | None:
        limit = self._settings.timeout_s
        return None if limit is None else call.since + limit - time.perf_counter()

    def _wait(self, call: Call) -> None:
        """Until the call is answered or leads.

        Raises:
            TimedOut: neither happened in time.
        """
        left = self._left_s(call)
        try:
            woken = call.wake.acquire(timeout=-1 if left is None else max(0.0, left))
        except BaseException:  # an interrupt: nobody may wait for an engine that this thread was given
            if self._leave(call) == "leading":
                self._hand_on(call.engine)  # type: ignore[arg-type]
            raise
        if not woken and self._leave(call) not in ("leading", "done"):
            raise _timed_out(self._settings)

    def _leave(self, call: Call) -> str:
        """Take ``call`` out of the queue, or out of the batch that it is in; what it was before."""
        with self._lock:
            was = call.state
            if was == "waiting" and call in self._waiting:
                self._waiting.remove(call)
            if was in ("waiting", "taken"):
                call.state = "gone"
            return was

    # A batch, run by the thread of its first call.

    def _lead(self, call: Call) -> None:
        engine, batch = call.engine, [call]
        assert engine is not None
        try:
            self._gather(batch)
            self._answer(engine, [call for call in batch if not self._expired(call)])
        except BaseException as exc:  # an interrupt of this thread, which is not that of the others
            if call.future is not None and call.state != "done":
                call.fail(EngineError("the call was interrupted", got=type(exc).__name__))
            raise
        finally:
            self._hand_on(engine, [other for other in batch[1:] if other.state == "taken"])

    def _expired(self, call: Call) -> bool:
        """Whether the time of ``call``, which no thread waits for, is over; then it is answered so."""
        left = None if call.future is None else self._left_s(call)
        if left is None or left > 0:
            return False
        call.fail(_timed_out(self._settings))
        return True

    def _gather(self, batch: list[Call]) -> None:
        """Add what waits and fits to ``batch``; wait for more as long as the settings or the last batch allow."""
        with self._lock:
            self._take(batch)
            until, expected = self._patience(batch)
            while (left := until - time.perf_counter()) > 0 and len(batch) < expected and not self._done(batch):
                self._missing = 1 if self._settings.max_delay_s else expected - len(batch)
                self._changed.wait(left)
                self._missing = 0
                self._take(batch)

    def _patience(self, batch: Sequence[Call]) -> tuple[float, int]:
        """Until when to wait for more calls, and for how many in all: the last batch's and those that came before."""
        if self._settings.max_delay_s:
            return batch[0].since + self._settings.max_delay_s, self._most
        earlier = sum(call.since < self._crowd_end for call in batch)
        return (self._crowd_until, self._crowd + earlier) if self._is_crowded() else (0.0, 0)

    def _is_crowded(self) -> bool:
        return len(self._engines) == 1 and self._crowd > 1 and time.perf_counter() < self._crowd_until

    def _done(self, batch: Sequence[Call]) -> bool:
        """Whether nothing more can come: the batch is full, another leader waits, or the session is being closed."""
        full = sum(call.rows for call in batch) >= min(batch[0].room, self._most)
        return full or self._missing > 0 or self._closing

    def _take(self, batch: list[Call]) -> None:
        key, left = batch[0].key, min(batch[0].room, self._most) - sum(call.rows for call in batch)
        share = -(-(len(batch) + len(self._waiting)) // len(self._engines))  # the other engines are to be busy too
        kept: deque[Call] = deque()
        while self._waiting:
            call = self._waiting.popleft()
            if call.rows > left or call.key != key or len(batch) >= share:
                kept.append(call)
            elif call.begins():
                call.state = "taken"
                batch.append(call)
                left -= call.rows
        self._waiting = kept

    def _answer(self, engine: Engine, batch: Sequence[Call]) -> None:
        """Run ``batch`` and answer its calls; one that fails, or that takes the batch down, fails alone."""
        if len(batch) < 2:
            for call in batch:
                _alone(engine, call)
            return
        rows, begin = sum(call.rows for call in batch), time.perf_counter()
        try:
            outputs = engine.run(self._layout.joined(batch))
            self._layout.check_rows(outputs, rows)
        except Exception:  # noqa: BLE001  each call gets its own answer or error
            passed = [_alone(engine, call) for call in batch]
            if all(passed):  # so the batch was too large, for the memory say
                self._most = max(1, min(self._most, rows // 2))
            return
        start, end = 0, time.perf_counter()
        self._crowd, self._crowd_end, self._crowd_until = len(batch), end, end + _RETURN * (end - begin)
        for call in batch:
            call.answer(outputs, (start, start + call.rows, self._layout.outputs))
            start += call.rows

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._workers is None:
                workers = max(len(self._engines), machine.usable_cores())
                self._workers = ThreadPoolExecutor(workers, thread_name_prefix="toolkit-batching")
            return self._workers

    def prove(self, feeds: Feeds) -> Execution:
        return self._engines[0].prove(feeds)

    def close(self) -> None:
        """Serve the calls that were accepted, then close the engines; later calls are refused."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            while self._waiting or self._direct or len(self._free) < len(self._engines):
                self._changed.wait()
        if self._workers is not None:
            self._workers.shutdown(wait=True)
        for engine in {id(engine): engine for engine in self._engines}.values():
            engine.close()


def _alone(engine: Engine, call: Call) -> bool:
    if call.state == "gone":
        return True
    try:
        call.answer(engine.run(call.feeds))
    except Exception as exc:  # noqa: BLE001  the caller raises it
        call.fail(exc)
        return False
    return True


def _timed_out(settings: Batching) -> TimedOut:
    return TimedOut(
        "the call was not answered in time", got=f"more than {settings.timeout_s} s", next_step="call again later"
    )
