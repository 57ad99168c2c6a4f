"""Concurrent calls share batches: right answers to everybody, errors to whom they belong, nothing lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from toolkit.errors import EngineError, Overloaded, TimedOut, ToolkitError, UsageError
from toolkit.providers.session import Execution, Session
from toolkit.runtime import batching
from toolkit.runtime.batching import Batching, BatchingEngine
from toolkit.runtime.calls import Layout
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds, TensorSpec

WAIT_S = 30  # for what has to happen; nothing waits so long


class Doubling:
    """Doubles ``x`` and counts its axes, when let through; -1 in ``x`` is an input that fails, and 13 rows too many."""

    inputs = (TensorSpec("x", "float32", ("batch", "len")),)
    outputs = (TensorSpec("y", "float32", ("batch", "len")), TensorSpec("width", "int64", ("batch",)))

    def __init__(self) -> None:
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []
        self.closed = False

    def run(self, feeds: Feeds) -> dict[str, Array]:
        assert not self.closed
        self.entered.release()
        assert self.open_gate.wait(WAIT_S)
        x = feeds["x"]
        self.batches.append(len(x))
        if (x == -1).any():
            raise ValueError("minus one")
        if len(x) >= 13:
            raise MemoryError("too many rows")
        return {"y": x * 2, "width": np.full(len(x), x.shape[1])}

    def prove(self, feeds: Feeds) -> Execution:
        return Execution("doubling", "1", "none", 1, {}, {})

    def close(self) -> None:
        self.closed = True


LAYOUT = Layout(["x"], {"x": 0}, {"y": 0, "width": 0})


def row(value: float, rows: int = 1, length: int = 3) -> dict[str, Array]:
    return {"x": np.full((rows, length), value, np.float32)}


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


class Bench:
    """An engine behind a gate, and callers that wait for it."""

    def __init__(self, count: int = 1, room: Callable[[int], int] | None = None, **settings: Any) -> None:
        self.inner = Doubling()
        self.engine = BatchingEngine([self.inner] * count, LAYOUT, Batching(**settings), room)
        self.session = Session(self.engine, "null", Target(provider="null"), "doubling")
        self.pool = ThreadPoolExecutor(64)

    def call(self, feeds: Feeds) -> Future[dict[str, Array]]:
        return self.pool.submit(self.session, feeds)

    def waiting(self) -> int:
        return len(self.engine._waiting)

    def queued(self, *calls: Feeds) -> list[Future[dict[str, Array]]]:
        """Calls that wait in this order, the engine being held by one call before them, which is the first."""
        self.inner.open_gate.clear()
        futures = [self.call(row(0))]
        assert self.inner.entered.acquire(timeout=WAIT_S)
        for feeds in calls:
            before = self.waiting()
            futures.append(self.call(feeds))
            eventually(lambda before=before: self.waiting() == before + 1)  # type: ignore[misc]
        return futures

    def go(self) -> None:
        self.inner.open_gate.set()


@contextmanager
def bench(count: int = 1, **settings: Any) -> Iterator[Bench]:
    made = Bench(count, **settings)
    try:
        yield made
    finally:
        made.go()
        made.session.close()
        made.pool.shutdown()


def answered(futures: list[Future[dict[str, Array]]], values: list[float]) -> None:
    for future, value in zip(futures, values, strict=True):
        np.testing.assert_array_equal(future.result(WAIT_S)["y"], np.full_like(future.result()["y"], 2 * value))


def test_a_lone_caller_runs_in_its_own_thread() -> None:
    with bench() as own:
        seen: list[int] = []
        run = own.inner.run
        own.inner.run = lambda feeds: (seen.append(threading.get_ident()), run(feeds))[1]  # type: ignore[method-assign]
        for value in range(3):
            assert own.session(row(value))["y"][0, 0] == 2 * value
        assert seen == [threading.get_ident()] * 3
        assert own.inner.batches == [1, 1, 1]


def test_what_waits_shares_one_batch_and_everybody_gets_their_own_rows() -> None:
    with bench() as own:
        futures = own.queued(row(1), row(2, rows=3), row(3), row(4, rows=2))
        own.go()
        answered(futures, [0, 1, 2, 3, 4])
        assert [len(future.result()["y"]) for future in futures] == [1, 1, 3, 1, 2]
        assert own.inner.batches == [1, 7]


def test_callers_own_their_outputs() -> None:
    with bench() as own:
        futures = own.queued(row(1), row(2))
        own.go()
        one, two = futures[1].result(WAIT_S), futures[2].result(WAIT_S)
        one["y"][:] = 99
        assert two["y"][0, 0] == 4
        assert one["y"].flags.owndata
        assert one["y"].flags.writeable


def test_only_calls_of_equal_shape_share_and_the_oldest_goes_first() -> None:
    with bench() as own:
        futures = own.queued(row(1, length=3), row(2, length=5), row(3, length=3), row(4, length=5))
        own.go()
        answered(futures, [0, 1, 2, 3, 4])
        assert [future.result()["width"][0] for future in futures] == [3, 3, 5, 3, 5]
        assert own.inner.batches == [1, 2, 2]


def test_a_batch_is_no_larger_than_allowed() -> None:
    with bench(max_size=4) as own:
        futures = own.queued(row(1, rows=3), row(2, rows=2), row(3), row(4, rows=4), row(5, rows=9), row(6))
        own.go()
        answered(futures, [0, 1, 2, 3, 4, 5, 6])
        # 3 + 1 fit, then 2 + 1; what is as large as a batch goes alone.
        assert own.inner.batches == [1, 4, 3, 4, 9]


def test_empty_calls_run_alone() -> None:
    with bench() as own:
        futures = own.queued(row(1), row(2, rows=0), row(3))
        own.go()
        assert futures[2].result(WAIT_S)["y"].shape == (0, 3)
        answered([futures[1], futures[3]], [1, 3])


def test_an_error_is_the_callers_whose_it_is() -> None:
    with bench() as own:
        futures = own.queued(row(1), row(-1), row(3), row(-1), row(5))
        own.go()
        answered([futures[index] for index in (0, 1, 3, 5)], [0, 1, 3, 5])
        for index in (2, 4):
            with pytest.raises(EngineError, match="minus one"):
                futures[index].result(WAIT_S)
        assert own.inner.batches == [1, 5, 1, 1, 1, 1, 1]


def test_a_batch_that_is_too_large_for_the_engine_makes_the_next_ones_smaller() -> None:
    with bench() as own:
        futures = own.queued(*[row(value) for value in range(1, 15)])
        own.go()
        answered(futures, list(range(15)))
        assert own.inner.batches[:2] == [1, 14]
        own.inner.batches.clear()
        futures = own.queued(*[row(value) for value in range(1, 15)])
        own.go()
        answered(futures, list(range(15)))
        assert own.inner.batches == [1, 7, 7]


def test_a_full_queue_refuses_at_once_and_serves_what_it_took() -> None:
    with bench(queue=2) as own:
        futures = own.queued(row(1), row(2))
        with pytest.raises(Overloaded, match="got 2 waiting; expected at most 2; call again later"):
            own.session(row(3))
        own.go()
        answered(futures, [0, 1, 2])


def test_a_call_that_waits_too_long_is_told_and_does_not_run() -> None:
    with bench(timeout_s=1.0) as own:
        futures = own.queued(row(1))
        with pytest.raises(TimedOut, match="not answered in time; got more than 1.0 s"):
            futures[1].result(WAIT_S)
        assert own.waiting() == 0
        own.go()
        answered(futures[:1], [0])
        assert own.inner.batches == [1]
        assert issubclass(TimedOut, TimeoutError)


def test_a_call_whose_batch_hangs_is_told_too() -> None:
    with bench(timeout_s=1.0) as own:
        futures = own.queued(row(1), row(2))
        own.inner.open_gate = second = threading.Event()  # the waiting ones run into this gate
        with pytest.raises(TimedOut):
            futures[2].result(WAIT_S)
        second.set()
    assert own.inner.closed


def test_closing_serves_what_was_accepted_and_refuses_the_rest() -> None:
    own = Bench()
    futures = own.queued(row(1), row(2), row(3, length=5))
    closing = own.pool.submit(own.session.close)
    eventually(lambda: own.engine._closing)
    with pytest.raises(UsageError, match="this session is closed; open the model again"):
        own.engine.run(row(4))
    with pytest.raises(UsageError, match="this session is closed"):
        own.engine.submit(row(4))
    assert not own.inner.closed
    own.go()
    closing.result(WAIT_S)
    answered(futures, [0, 1, 2, 3])
    assert own.inner.closed
    own.engine.close()  # again: nothing
    own.pool.shutdown()


def test_a_delay_lets_others_join_unless_the_engine_is_free() -> None:
    with bench(max_delay_s=WAIT_S, max_size=3) as own:
        assert own.session(row(9))["y"][0, 0] == 18  # at once: nobody was before it
        futures = own.queued(row(1))
        own.go()
        answered(futures[:1], [0])
        eventually(lambda: own.waiting() == 0)  # the second leads, and waits for others
        futures += [own.call(row(2)), own.call(row(3))]
        answered(futures, [0, 1, 2, 3])
        assert own.inner.batches == [1, 1, 3]


def test_callers_of_a_batch_that_come_back_at_once_share_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with bench() as own:
        futures = own.queued(row(1), row(2), row(3))
        monkeypatch.setattr(batching, "_RETURN", 1e6)  # for as long as it takes
        own.go()
        answered(futures, [0, 1, 2, 3])
        futures = [own.call(row(value)) for value in (1, 2, 3)]
        answered(futures, [1, 2, 3])
        assert own.inner.batches == [1, 3, 3]
        monkeypatch.setattr(batching, "_RETURN", 0.0)
        answered([own.call(row(value)) for value in (1, 2, 3)], [1, 2, 3])
        assert own.session(row(4))["y"][0, 0] == 8  # none of them is waited for any more


def test_two_engines_run_side_by_side() -> None:
    with bench(count=2) as own:
        own.inner.open_gate.clear()
        first, second = own.call(row(1)), own.call(row(2))
        for _ in range(2):
            assert own.inner.entered.acquire(timeout=WAIT_S)
        assert own.waiting() == 0
        own.go()
        answered([first, second], [1, 2])


def test_two_engines_share_what_waits() -> None:
    with bench(count=2) as own:
        own.inner.open_gate.clear()
        futures = [own.call(row(value)) for value in (1, 2)]
        for _ in range(2):
            assert own.inner.entered.acquire(timeout=WAIT_S)
        futures += [own.call(row(value)) for value in (3, 4, 5, 6)]
        eventually(lambda: own.waiting() == 4)
        own.go()
        answered(futures, [1, 2, 3, 4, 5, 6])
        assert max(own.inner.batches) == 2


def test_where_there_is_room_for_one_row_calls_go_straight_to_the_engine() -> None:
    with bench(room=lambda elements: 12 // elements) as own:
        futures = own.queued(row(1), row(2))
        alone = [own.call(row(value, length=12)) for value in (3, 4)]
        for _ in alone:
            assert own.inner.entered.acquire(timeout=WAIT_S)  # though another call is running
        own.go()
        answered([*futures, *alone], [0, 1, 2, 3, 4])
        assert sorted(own.inner.batches) == [1, 1, 1, 2]


def test_shared_inputs_have_to_be_equal() -> None:
    layout = Layout(["x", "rate"], {"x": 0}, {"y": 0})
    x = np.zeros((2, 3), np.float32)
    slow, fast = ({"x": x, "rate": np.array(rate)} for rate in (8000, 16000))
    large = {"x": x, "rate": np.zeros(10_000)}
    assert layout.describe(slow) == layout.describe({"x": x + 1, "rate": np.array(8000)})
    assert layout.describe(slow) != layout.describe(fast)
    assert layout.describe(large) != layout.describe(large)  # too much to compare


def test_many_awaits_share_batches() -> None:
    with bench(max_size=12) as own:

        async def calls() -> list[dict[str, Array]]:
            return await asyncio.gather(*(own.session.run_async(row(value)) for value in range(100)))

        for value, outputs in enumerate(asyncio.run(calls())):
            assert outputs["y"][0, 0] == 2 * value
        assert len(own.inner.batches) < 60
        assert sum(own.inner.batches) == 100


def test_an_await_that_is_cancelled_before_its_turn_does_not_run() -> None:
    with bench() as own:

        async def calls() -> list[Any]:
            own.inner.open_gate.clear()
            tasks = [asyncio.create_task(own.session.run_async(row(value))) for value in range(5)]
            await asyncio.to_thread(eventually, lambda: own.waiting() == 4)
            tasks[2].cancel()
            await asyncio.sleep(0)
            await asyncio.to_thread(eventually, lambda: own.waiting() == 3)
            own.go()
            return await asyncio.gather(*tasks, return_exceptions=True)

        outcomes = asyncio.run(calls())
        assert isinstance(outcomes.pop(2), asyncio.CancelledError)
        assert [outcome["y"][0, 0] for outcome in outcomes] == [0, 2, 6, 8]
        assert own.inner.batches == [1, 3]


def test_errors_refusals_and_timeouts_reach_awaits() -> None:
    with bench(queue=2, timeout_s=0.5) as own:

        async def calls() -> list[Any]:
            own.inner.open_gate.clear()
            tasks = [asyncio.create_task(own.session.run_async(row(value))) for value in (-1, 1, 2, 3)]
            await asyncio.sleep(0.6)
            own.go()
            return await asyncio.gather(*tasks, return_exceptions=True)

        kinds = [type(outcome) for outcome in asyncio.run(calls())]
        assert kinds == [EngineError, TimedOut, TimedOut, Overloaded]
        assert own.session(row(4))["y"][0, 0] == 8


def test_an_interrupt_of_the_thread_that_runs_a_batch_costs_the_others_nothing() -> None:
    class Interrupt(BaseException):
        pass

    with bench() as own:
        futures = own.queued(row(1), row(2), row(3))
        run, interrupts = own.inner.run, [Interrupt()]

        def interrupted(feeds: Feeds) -> dict[str, Array]:
            if len(feeds["x"]) > 1 and interrupts:
                raise interrupts.pop()
            return run(feeds)

        own.inner.run = interrupted  # type: ignore[method-assign]
        own.go()
        with pytest.raises(Interrupt):
            futures[1].result(WAIT_S)
        answered([futures[0], *futures[2:]], [0, 2, 3])


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings in ({"max_size": 0}, {"queue": -1}, {"max_delay_s": -1.0}, {"timeout_s": -1.0}):
        with pytest.raises(ToolkitError, match="not negative"):
            Batching(**settings)  # type: ignore[arg-type]
