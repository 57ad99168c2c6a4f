"""Everything at once: threads and awaits, errors, cancellations, timeouts, refusals. Each call is answered once."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from toolkit.errors import EngineError, Overloaded, TimedOut
from toolkit.providers.session import Execution, Session
from toolkit.runtime.batching import Batching, BatchingEngine
from toolkit.runtime.calls import Layout
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds, TensorSpec

THREADS, LOOPS, CALLS = 16, 2, 60


class Fickle:
    """Doubles, at its own pace; negative numbers are an error."""

    inputs = (TensorSpec("x", "float32", ("batch", "len")),)
    outputs = (TensorSpec("y", "float32", ("batch", "len")),)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        time.sleep(random.random() * 0.002)
        if (feeds["x"] < 0).any():
            raise ValueError("negative")
        return {"y": feeds["x"] * 2}

    def prove(self, feeds: Feeds) -> Execution:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Mix:
    """Callers of one session, and what became of their calls."""

    def __init__(self, session: Session) -> None:
        self.session, self.outcomes, self.failures = session, Counter[str](), list[BaseException]()

    def feeds(self, chance: random.Random) -> tuple[int, Feeds]:
        value = chance.choice([-1, 1, 2, 3, 4, 5, 6, 7])
        return value, {"x": np.full((chance.randint(1, 4), chance.choice([1, 2, 5])), value, np.float32)}

    def settle(self, value: int, feeds: Feeds, outcome: dict[str, Array] | BaseException) -> None:
        if isinstance(outcome, dict):
            np.testing.assert_array_equal(outcome["y"], 2 * feeds["x"])
            assert value > 0
        elif isinstance(outcome, EngineError):
            assert value < 0
        else:
            assert isinstance(outcome, Overloaded | TimedOut | asyncio.CancelledError)
        self.outcomes[type(outcome).__name__] += 1

    def calling(self, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(CALLS):
            value, feeds = self.feeds(chance)
            try:
                outcome: dict[str, Array] | BaseException = self.session(feeds)
            except Exception as exc:  # noqa: BLE001 - judged like an answer
                outcome = exc
            self.settle(value, feeds, outcome)

    def awaiting(self, seed: int) -> None:
        chance = random.Random(seed)

        async def one() -> None:
            value, feeds = self.feeds(chance)
            task = asyncio.ensure_future(self.session.run_async(feeds))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.003)
                task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            self.settle(value, feeds, outcome)

        async def all_of_them() -> None:
            for _ in range(CALLS // 10):
                await asyncio.gather(*(one() for _ in range(10)))

        asyncio.run(all_of_them())

    def kept(self, work: Callable[[int], None], seed: int) -> None:
        try:
            work(seed)
        except BaseException as exc:  # noqa: BLE001 - shown by the main thread
            self.failures.append(exc)


@pytest.mark.parametrize(
    ("count", "room"), [(1, None), (2, None), (1, lambda elements: 16 // elements)], ids=["one", "two", "room"]
)
def test_each_call_is_answered_once(count: int, room: Callable[[int], int] | None) -> None:
    settings = Batching(queue=12, timeout_s=0.02, max_size=8)
    engines = [Fickle() for _ in range(count)]
    engine = BatchingEngine(engines, Layout(["x"], {"x": 0}, {"y": 0}), settings, room)
    with Session(engine, "null", Target(provider="null"), "fickle") as session:
        mix = Mix(session)
        works = [mix.calling] * THREADS + [mix.awaiting] * LOOPS
        threads = [threading.Thread(target=mix.kept, args=(work, seed)) for seed, work in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert not mix.failures, mix.failures[0]
        assert sum(mix.outcomes.values()) == (THREADS + LOOPS) * CALLS
        assert mix.outcomes["dict"]
        # Nothing is left behind, and no engine is lost: all of them take the next calls.
        assert session({"x": np.ones((1, 1), np.float32)})["y"] == 2
        assert sorted(map(id, engine._free)) == sorted(map(id, engines))
