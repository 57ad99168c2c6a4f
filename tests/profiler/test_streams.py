"""Several calls at the same time: full load while it counts, throughput by the wall clock, failures that end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.models import LINEAR
from toolkit.profiler.streams import Load, Streams, _load, _share
from toolkit.providers import registry
from toolkit.providers.base import Available
from toolkit.tensors import Feeds

MS = 1_000_000
FEEDS: list[Feeds] = [{"x": np.full(1, index)} for index in range(4)]


class Application:
    """Something to call: sleeps, counts how many are inside, keeps what it was fed."""

    def __init__(self, sleep_s: float, serial: bool = False) -> None:
        self.sleep_s, self.lock = sleep_s, threading.Lock() if serial else None
        self.inside, self.most_inside, self.fed = 0, 0, set[int]()
        self.guard = threading.Lock()

    def run(self, feeds: Feeds) -> None:
        with self.guard:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            self.fed.add(int(feeds["x"][0]))
        if self.lock is None:
            time.sleep(self.sleep_s)
        else:
            with self.lock:
                time.sleep(self.sleep_s)
        with self.guard:
            self.inside -= 1


@pytest.fixture
def measured() -> Iterator[Any]:
    """``measured(application, streams, ms)`` gives the load of one block; the threads end with the test."""
    made: list[Streams] = []

    def measure(application: Application, count: int, ms: int, *, drop_first: bool = True) -> Load:
        made.append(Streams(application.run, FEEDS, count))
        return made[-1].measure(ms * MS, drop_first=drop_first)

    yield measure
    for streams in made:
        streams.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream")]


def per_s(load: Load) -> float:
    return load.done * 1e9 / load.window_ns


def test_streams_that_do_not_wait_for_each_other_add_up(measured: Any) -> None:
    application = Application(0.01)
    load = measured(application, 3, 150)
    assert application.most_inside == 3
    assert per_s(load) > 200  # 300 if nothing else ran, 100 with one stream
    assert min(load.samples_ns) >= 10 * MS
    assert load.window_ns >= 140 * MS


def test_streams_that_wait_for_each_other_take_longer_and_do_no_more(measured: Any) -> None:
    load = measured(Application(0.01, serial=True), 3, 150)
    assert per_s(load) < 110
    # Three in a line of 10 ms each, on average (Little's law): a plain lock may let one of them pass again and again.
    assert np.mean(load.samples_ns) > 15 * MS


def test_inputs_rotate_in_every_stream(measured: Any) -> None:
    application = Application(0.001)
    measured(application, 2, 40)
    assert application.fed == {0, 1, 2, 3}


def test_a_block_shorter_than_a_call_holds_one_call_of_each_stream(measured: Any) -> None:
    load = measured(Application(0.02), 3, 1, drop_first=False)
    assert len(load.samples_ns) == 3
    assert load.runs >= 3
    assert 0 < load.done <= load.runs


def test_the_dropped_call_of_each_stream_counts_as_a_run_alone(measured: Any) -> None:
    load = measured(Application(0.005), 2, 30)
    assert load.runs > len(load.samples_ns)


def test_a_stream_that_fails_ends_the_block_with_its_own_error() -> None:
    calls = iter(range(1000))

    def run(feeds: Feeds) -> None:
        time.sleep(0.001)
        if next(calls) == 7:
            raise ValueError("the seventh")

    streams = Streams(run, FEEDS, 3)
    began = time.monotonic()
    with pytest.raises(ValueError, match="the seventh"):
        streams.measure(20_000 * MS, drop_first=False)
    assert time.monotonic() - began < 10
    streams.close()


def test_a_first_call_that_fails_leaves_no_stream_waiting() -> None:
    def run(feeds: Feeds) -> None:
        if int(feeds["x"][0]) == 1:
            raise ValueError("the first")

    streams = Streams(run, FEEDS, 3)
    with pytest.raises(ValueError, match="the first"):
        streams.measure(20_000 * MS, drop_first=True)
    streams.close()


def test_a_stream_that_is_starved_gets_its_turn_in_the_end() -> None:
    """A session that serves one thread for as long as it calls: the greedy one has to stop."""
    busy, last = threading.Event(), [0.0]

    def run(feeds: Feeds) -> None:
        if int(feeds["x"][0]) % 2:  # the sets of the second stream, which has two of its own
            while busy.is_set() and time.monotonic() - last[0] < 0.1:
                time.sleep(0.001)
        else:
            busy.set()
            last[0] = time.monotonic()
            time.sleep(0.001)

    streams = Streams(run, FEEDS, 2)
    streams._next = lambda index: FEEDS[index]  # type: ignore[method-assign]  # the greedy and the starved stay so
    began = time.monotonic()
    load = streams.measure(20 * MS, drop_first=False)
    assert 0.1 < time.monotonic() - began < 10
    assert load.done > 0
    streams.close()


def test_calls_at_the_edge_count_in_part_and_those_after_the_end_are_no_samples() -> None:
    # Two streams of calls of 10; the block lasts 25: each begins its third call at 20, and goes on to its end.
    calls = [[(0, 10), (10, 20), (20, 30), (30, 40)], [(5, 15), (15, 25), (25, 35)]]
    load = _load(calls, 25, drop_first=False)
    assert load.window_ns == 30  # from 5, when both were busy, to 35
    assert load.done == pytest.approx(0.5 + 1 + 1 + 0.5 + 3)
    assert load.samples_ns == [10] * 6  # not the one that began at 30
    assert load.runs == 7
    assert _share((0, 10), 4, 6) == pytest.approx(0.2)
    assert _share((0, 10), 20, 30) == 0


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_session_answers_several_threads_as_it_answers_one(provider: str, tmp_path: Path) -> None:
    if not isinstance(registry.provider(provider).probe(), Available):
        pytest.skip(f"{provider} is not available")
    feeds = [{"x": np.random.default_rng(index).standard_normal((1 + index, 4)).astype(np.float32)} for index in (0, 1)]
    with registry.provider(provider).open(LINEAR.write(tmp_path)) as session:
        expected = [session(feed)["y"] for feed in feeds]

        def check(feed: Feeds) -> None:
            found = session(feed)["y"]
            np.testing.assert_allclose(found, expected[len(feed["x"]) - 1], rtol=1e-5)

        streams = Streams(check, feeds, 4)
        assert streams.measure(200 * MS, drop_first=True).done > 4
        streams.close()
