"""The search for the best batch, with workers that are only objects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from toolkit.profiler.cases import Case
from toolkit.profiler.offline import Search, best_batch, searched
from toolkit.profiler.process import CaseEnded, Expected
from toolkit.profiler.protocol import Open, Opened, Request, Tried, Try
from toolkit.targets import Target

CASE = Case(model="m", path="m", target=Target(name="t", provider="null"), scenario="offline")
MB = 1_000_000
Answer = Callable[[int], float]


class FakeWorker:
    """Answers samples per second by batch, and memory that grows with it."""

    def __init__(self, rate: Answer, *, fixed: int = 0, bytes_per_sample: int = MB, fails_at: int = 1 << 40) -> None:
        self.rate, self.fixed, self.bytes_per_sample, self.fails_at = rate, fixed, bytes_per_sample, fails_at
        self.asked: list[int] = []
        self.closed = False

    def ask(self, request: Request, expected: type[Expected], timeout_s: float) -> Expected:
        reply = self._reply(request)
        assert isinstance(reply, expected)
        return reply

    def _reply(self, request: Request) -> object:
        if isinstance(request, Open):
            return Opened(
                import_ns=1, load_ns=1, first_inference_ns=1, precision="float32", batch=self.fixed or 1, dims={},
                shapes=[], base_memory_bytes=1, free_batch=not self.fixed,
            )  # fmt: skip
        assert isinstance(request, Try)
        self.asked.append(request.batch)
        if request.batch >= self.fails_at:
            raise CaseEnded("failed", "its worker was killed by SIGKILL")
        return Tried(request.batch, self.rate(request.batch), 100 * MB + self.bytes_per_sample * request.batch)

    def close(self) -> None:
        self.closed = True


def search(worker: FakeWorker, available_bytes: int | None = None) -> Search:
    found = best_batch(CASE, lambda: worker, available_bytes)
    assert worker.closed
    return found


def saturating(batch: int) -> float:
    """Doubles up to 8, then gains 4 % for each doubling."""
    return 100.0 * min(batch, 8) * 1.04 ** max(0, batch.bit_length() - 4)


def test_it_doubles_until_that_gains_under_five_percent() -> None:
    worker = FakeWorker(saturating)
    found = search(worker)
    assert [batch for batch, _ in found.tried] == [1, 2, 4, 8, 16]
    assert found.batch == 16  # tried, and 4 % better than 8: the best of those tried is taken
    assert found.doubts == []
    assert worker.asked == [1, 2, 4, 8, 16, 8, 16]  # a second look before it ends


def test_one_slow_look_does_not_end_it() -> None:
    looks: list[int] = []

    def rate(batch: int) -> float:
        looks.append(batch)
        return 1.0 if batch == 4 and looks.count(4) == 1 else saturating(batch)

    assert search(FakeWorker(rate)).batch == 16


def test_a_batch_that_costs_the_worker_its_life_ends_the_search_at_the_one_before() -> None:
    found = search(FakeWorker(lambda batch: 100.0 * batch, fails_at=32))
    assert found.batch == 16
    assert found.doubts == [
        "the search ended at batch 16: batch 32 failed (its worker was killed by SIGKILL)",
    ]


def test_it_ends_where_memory_would_be_short() -> None:
    found = search(FakeWorker(lambda batch: 100.0 * batch, bytes_per_sample=10 * MB), available_bytes=1000 * MB)
    assert found.batch == 64  # 740 MB; 128 would take 1.38 GB, of 1 GB
    assert "memory is short (batch 128 would take about 1.4 GB)" in found.doubts[0]


def test_it_ends_where_one_call_would_take_too_long() -> None:
    slow = search(FakeWorker(lambda batch: 0.15 * batch**0.5))
    assert slow.batch == 1 and "would take more than 10 s" in slow.doubts[0]


def test_a_fixed_batch_is_the_only_one() -> None:
    worker = FakeWorker(lambda batch: 50.0, fixed=4)
    assert search(worker) == Search(4, [(4, 50.0)], ["the batch is fixed in the model: no other was tried"])
    assert worker.asked == [4]


def test_a_case_that_does_not_open_is_left_to_the_schedule() -> None:
    class Broken(FakeWorker):
        def _reply(self, request: Request) -> object:
            raise CaseEnded("failed", "no")

    assert search(Broken(saturating)) == Search(None)


def test_other_scenarios_are_left_alone_and_ctrl_c_is_passed_on() -> None:
    single = Case(model="s", path="s", target=CASE.target, batch=3)
    cases, found, stopped = searched([single, CASE], lambda: FakeWorker(saturating), None, lambda progress: None)
    assert cases[0] is single and isinstance(cases[1], Case) and cases[1].batch == 16
    assert list(found) == ["m@t[offline]"] and not stopped

    class Interrupted(FakeWorker):
        def _reply(self, request: Request) -> object:
            raise KeyboardInterrupt

    worker = Interrupted(saturating)
    cases, found, stopped = searched([CASE], lambda: worker, None, lambda progress: None)
    assert stopped and cases == [CASE] and worker.closed


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_saturating_is_what_it_says(batch: int) -> None:
    assert saturating(batch) == 100.0 * batch
