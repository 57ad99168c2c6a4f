"""Turns, budgets and failures, with workers that are only objects and a clock that is only a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from toolkit.profiler.cases import Case
from toolkit.profiler.process import CaseEnded, Expected
from toolkit.profiler.protocol import Block, Measure, Open, Opened, Proof, Request
from toolkit.profiler.schedule import Course, Enough, Plan, Progress, Run, measure
from toolkit.providers.session import Execution
from toolkit.targets import Target

BLOCK_S = 0.125  # exact in binary, so that sums of it are
OPENED = Opened(
    import_ns=1, load_ns=2, first_inference_ns=3, precision="float32", batch=1, dims={}, shapes=[[1]],
    base_memory_bytes=1,
)  # fmt: skip


@dataclass
class Laboratory:
    """Makes workers and keeps the time; ``troubles`` maps (model, request type) to what happens."""

    troubles: dict[tuple[str, type], BaseException] = field(default_factory=dict)
    block_s: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    log: list[str] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0

    def start(self) -> FakeWorker:
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return FakeWorker(self)

    def run(
        self, cases: list[Case], plan: Plan, groups: list[list[int]] | None = None, enough: Enough | None = None
    ) -> Run:
        self.progress: list[Progress] = []
        chosen = [list(range(len(cases)))] if groups is None else groups
        return measure(cases, chosen, plan, self.start, self.progress.append, lambda: self.now, enough)


class FakeWorker:
    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory, self.model, self.closed = laboratory, "", False

    def ask(self, request: Request, expected: type[Expected], timeout_s: float) -> Expected:
        if isinstance(request, Open):
            self.model = request.case.model
        trouble = self.laboratory.troubles.get((self.model, type(request)))
        if trouble is not None:
            raise trouble
        reply = self._reply(request)
        assert isinstance(reply, expected)
        return reply

    def _reply(self, request: Request) -> object:
        if isinstance(request, Open):
            self.laboratory.now += 1.0
            return OPENED
        if isinstance(request, Measure):
            self.laboratory.now += self.laboratory.block_s.get(self.model, BLOCK_S)
            self.laboratory.log.append(self.model)
            return Block([len(self.model)] * 5, 5, 77)
        return Proof(Execution("p", "1", "d", 1, {}, {}))

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        self.laboratory.open_now -= 1


def cases(names: str) -> list[Case]:
    target = Target(name="t", provider="null")
    return [Case(model=name, path=name, target=target) for name in names]


def test_cases_take_turns_in_random_order_each_once_a_round() -> None:
    laboratory = Laboratory()
    run = laboratory.run(cases("abcd"), Plan(budget_s=20, processes=1))
    rounds = [laboratory.log[i : i + 4] for i in range(0, len(laboratory.log), 4)]
    assert len(rounds) == 40
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len({tuple(order) for order in rounds}) > 10
    assert [turn.round for turn in run.courses[0].turns] == list(range(40))
    assert laboratory.open_now == 0


def test_the_order_follows_the_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        laboratory = Laboratory()
        laboratory.run(cases("abc"), Plan(budget_s=5, processes=1, seed=seed))
        orders.append(laboratory.log)
    assert orders[0] == orders[1] != orders[2]


def test_the_budget_is_shared_by_processes_and_excludes_starting() -> None:
    laboratory = Laboratory()
    run = laboratory.run(cases("ab"), Plan(budget_s=12, processes=3))
    assert laboratory.now == 3 * 2 * 1.0 + 12
    assert Counter(turn.process for turn in run.courses[0].turns) == {0: 16, 1: 16, 2: 16}
    assert len(run.courses[0].openings) == 3
    assert run.courses[0].calls == 5 * 48


def test_even_the_smallest_budget_measures_everyone_once() -> None:
    run = Laboratory().run(cases("abc"), Plan(budget_s=1e-9, processes=1))
    assert [len(course.turns) for course in run.courses] == [1, 1, 1]


@pytest.mark.parametrize("request_type", [Open, Measure])
def test_a_case_that_ends_costs_only_itself(request_type: type) -> None:
    laboratory = Laboratory({("b", request_type): CaseEnded("failed", "boom")})
    run = laboratory.run(cases("abc"), Plan(budget_s=6, processes=2))
    a, b, c = run.courses
    assert b.ended is not None and b.ended.reason == "boom" and b.turns == []
    assert a.ended is None and c.ended is None
    assert len(a.turns) == len(c.turns) == 24
    assert laboratory.open_now == 0


def test_when_all_have_ended_the_run_ends_before_its_budget() -> None:
    laboratory = Laboratory({("a", Measure): CaseEnded("failed", "boom")})
    laboratory.run(cases("a"), Plan(budget_s=1000, processes=1))
    assert laboratory.now < 10


def test_a_proof_that_fails_leaves_the_measurement() -> None:
    from toolkit.profiler.protocol import Prove

    run = Laboratory({("a", Prove): CaseEnded("failed", "no proof")}).run(cases("ab"), Plan(budget_s=1, processes=1))
    assert run.courses[0].ended is None and run.courses[0].unproven == "no proof" and run.courses[0].turns
    assert run.courses[1].execution is not None


def test_ctrl_c_keeps_what_was_measured_and_closes_everything() -> None:
    laboratory = Laboratory()
    interrupt_after(laboratory, 7)
    run = laboratory.run(cases("ab"), Plan(budget_s=100, processes=1))
    assert run.interrupted
    assert sum(len(course.turns) for course in run.courses) == 7
    assert laboratory.open_now == 0


def interrupt_after(laboratory: Laboratory, blocks: int) -> None:
    start: Callable[[], FakeWorker] = laboratory.start

    class Interrupting(FakeWorker):
        def _reply(self, request: Request) -> object:
            if isinstance(request, Measure) and len(laboratory.log) == blocks:
                raise KeyboardInterrupt
            return super()._reply(request)

    def interrupting() -> FakeWorker:
        start()
        return Interrupting(laboratory)

    laboratory.start = interrupting  # type: ignore[method-assign]


def test_groups_come_one_after_the_other_and_a_baseline_adds_up() -> None:
    laboratory = Laboratory()
    run = laboratory.run(cases("abc"), Plan(budget_s=8, processes=1), groups=[[0, 1], [0, 2]])
    assert laboratory.most_open == 2
    baseline, first, second = run.courses
    assert len(baseline.turns) == len(first.turns) + len(second.turns)
    assert {turn.process for turn in first.turns}.isdisjoint(turn.process for turn in second.turns)
    assert len(baseline.openings) == 2


def test_progress_goes_up_and_the_time_left_goes_down() -> None:
    laboratory = Laboratory()
    laboratory.run(cases("ab"), Plan(budget_s=10, processes=2))
    done = [item.done for item in laboratory.progress]
    measuring = [item.left_s for item in laboratory.progress if item.text.startswith("measuring")]
    assert done == sorted(done) and done[-1] > 0.95
    assert measuring == sorted(measuring, reverse=True) and measuring[-1] < 1


def test_a_slow_model_does_not_use_up_the_budget_of_a_fast_one() -> None:
    """Two pairs that are not comparable with each other; blocks of one take 16 times as long."""
    laboratory = Laboratory()
    pairs = [msgspec.structs.replace(case, group=case.model.lower()) for case in cases("aABb")]
    laboratory.block_s = {"a": 16 * BLOCK_S, "A": 16 * BLOCK_S}
    run = laboratory.run(pairs, Plan(budget_s=80, processes=1))
    counts = [len(course.turns) for course in run.courses]
    assert counts[0] == counts[1] == pytest.approx(10, abs=1)
    assert counts[2] == counts[3] == pytest.approx(160, abs=16)


def test_even_the_smallest_budget_measures_every_group() -> None:
    pairs = [msgspec.structs.replace(case, group=case.model) for case in cases("abc")]
    run = Laboratory().run(pairs, Plan(budget_s=1e-9, processes=1))
    assert [len(course.turns) for course in run.courses] == [1, 1, 1]


class After:
    """Enough after so many turns of a process, and of the whole run."""

    def __init__(self, process_turns: int, run_turns: int) -> None:
        self.process_turns, self.run_turns = process_turns, run_turns

    def in_process(self, courses: Sequence[Course], process: int) -> bool:
        turns = [sum(turn.process == process for turn in course.turns) for course in courses if course.ended is None]
        return all(count >= self.process_turns for count in turns)

    def in_run(self, courses: Sequence[Course]) -> bool:
        return all(len(course.turns) >= self.run_turns for course in courses if course.ended is None)


def test_a_run_ends_when_enough_is_known() -> None:
    laboratory = Laboratory()
    run = laboratory.run(cases("ab"), Plan(budget_s=1000, processes=3), enough=After(6, 18))
    turns = Counter(turn.process for turn in run.courses[0].turns)
    assert len(turns) == 3 and all(6 <= count < 12 for count in turns.values())


def test_time_that_is_left_goes_to_further_processes_until_enough_is_known() -> None:
    laboratory = Laboratory()
    run = laboratory.run(cases("ab"), Plan(budget_s=1000, processes=3), enough=After(6, 40))
    turns = Counter(turn.process for turn in run.courses[0].turns)
    assert 3 < len(turns) <= 7 and sum(turns.values()) >= 40
    assert laboratory.open_now == 0


def test_a_run_that_never_knows_enough_ends_with_its_budget() -> None:
    laboratory = Laboratory()
    run = laboratory.run(cases("ab"), Plan(budget_s=30, processes=3), enough=After(6, 10**9))
    openings = len(run.courses[0].openings)
    assert openings > 3
    assert laboratory.now - 2 * openings * 1.0 == pytest.approx(30, abs=2 * BLOCK_S)
