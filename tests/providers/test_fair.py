"""Whoever came first is served first, and nobody waits for ever."""

from __future__ import annotations

import threading
import time

import pytest

from toolkit.errors import UsageError
from toolkit.providers.fair import FairPool


def test_free_items_are_taken_at_once_and_come_back() -> None:
    pool = FairPool("ab")
    first, second = pool.take(), pool.take()
    assert {first, second} == {"a", "b"}
    pool.give("a")
    assert pool.take() == "a"


def test_who_waits_longest_is_first() -> None:
    pool: FairPool[str] = FairPool()
    served: list[int] = []

    def wait(number: int) -> None:
        assert pool.take() == "x"
        served.append(number)
        pool.give("x")

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        while len(pool._line) < count:
            time.sleep(0.001)
    pool.give("x")
    for thread in threads:
        thread.join(10)
    assert served == [0, 1, 2, 3, 4]


def test_a_greedy_thread_does_not_starve_another() -> None:
    pool = FairPool("x")
    counts = [0, 0]
    stop = time.monotonic() + 0.3

    def call(index: int) -> None:
        while time.monotonic() < stop:
            item = pool.take()
            counts[index] += 1
            assert item is not None
            pool.give(item)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert min(counts) > 0


def test_closing_wakes_who_waits_and_turns_away_who_comes() -> None:
    pool: FairPool[str] = FairPool()
    told: list[str] = []

    def wait() -> None:
        try:
            pool.take()
        except UsageError as exc:
            told.append(str(exc))

    thread = threading.Thread(target=wait)
    thread.start()
    while not pool._line:
        time.sleep(0.001)
    pool.close()
    thread.join(10)
    assert told == ["the session was closed while this call waited"]
    pool.give("late")
    with pytest.raises(UsageError, match="was closed"):
        pool.take()
