"""Who is measured when: cases take turns in short blocks, in random order, until the budget is spent.

Each case has a process of its own. All live processes get one block per round, so that whatever disturbs the machine
disturbs all cases alike. Processes are started anew several times, since luck in where memory lands stays for a
process's life. A case that fails costs only itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

import msgspec

from toolkit.profiler.cases import Case, label
from toolkit.profiler.gauges import Readings
from toolkit.profiler.interrupts import measuring, shielded
from toolkit.profiler.process import CaseEnded, Expected, Worker
from toolkit.profiler.protocol import Block, Measure, Open, Opened, Proof, Prove, Request
from toolkit.providers.session import Execution

BLOCK_NS = 50_000_000
FIRST_LOOK_S, LOOK_AGAIN = 1.0, 1.4
"""Whether enough has been measured is asked after so many seconds of a process, then each time that factor later."""
_FIRST_INFERENCES = 5
"""A block may take this many first inferences, and the plan's timeout, before its worker is taken for hanging."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure.

    Attributes:
        budget_s: time for taking turns, starting and opening not counted.
        processes: how often each case gets a fresh process.
        open_timeout_s: for importing, opening and the first inference.
        block_timeout_s: for one block, beyond what the first inference lets expect.
        seed: of the order of turns.
    """

    budget_s: float = 30.0
    processes: int = 3
    open_timeout_s: float = 600.0
    block_timeout_s: float = 30.0
    seed: int = 0


class Turn(msgspec.Struct, frozen=True):
    """One block: which process it came from and in which of its rounds; the rest as in :class:`Block`."""

    process: int
    round: int
    samples_ns: list[int]
    done: float = 0.0
    window_ns: int = 0
    readings: Readings = Readings()
    device_ns: list[int] = []
    copy_ns: list[int] = []


@dataclass
class Course:
    """What became of one case."""

    case: Case
    turns: list[Turn] = field(default_factory=list)
    openings: list[Opened] = field(default_factory=list)
    calls: int = 0
    peak_memory_bytes: int = 0
    execution: Execution | None = None
    unproven: str = ""
    ended: CaseEnded | None = None

    @property
    def comparable(self) -> object:
        """Equal for cases that can be compared: same group and scenario, fed the same shapes.

        Offline, each case is fed its own best batch, and times per sample are compared: there the samples' shapes
        have to be the same.
        """
        case, opened = self.case, self.openings[-1]
        shapes = tuple(tuple(shape) for shape in opened.shapes)
        if case.scenario == "offline":
            rows = tuple(shape[1:] if shape[:1] == (opened.batch,) else shape for shape in shapes)
            return case.group, case.scenario, 0, rows
        return case.group, case.scenario, case.streams, opened.batch, shapes


@dataclass
class _Rounds:
    """How many rounds cases that can be compared have had, and how much time they took."""

    count: int = 0
    spent_s: float = 0.0


class Progress(msgspec.Struct, frozen=True):
    """Where the run stands: a short text, the share done (0…1) and the seconds that are left of the budget."""

    text: str
    done: float
    left_s: float


class Run(msgspec.Struct, frozen=True):
    """All courses, in the order of their cases."""

    courses: tuple[Course, ...]
    interrupted: bool


class Enough(Protocol):
    """Says when to stop before the budget is spent."""

    def in_process(self, courses: Sequence[Course], process: int) -> bool: ...

    def in_run(self, courses: Sequence[Course]) -> bool: ...


Start = Callable[[], Worker]
OnProgress = Callable[[Progress], None]
Clock = Callable[[], float]


def measure(
    cases: Sequence[Case],
    groups: Sequence[Sequence[int]],
    plan: Plan,
    start: Start,
    on_progress: OnProgress,
    clock: Clock = time.monotonic,
    enough: Enough | None = None,
    earlier: Sequence[Course] | None = None,
) -> Run:
    """Measure the cases of each group (of indices into ``cases``) side by side, the groups one after the other.

    A case may stand in several groups, as a baseline does; its measurements then add up, as they do with those of
    ``earlier``, one course per case. Ctrl-C ends the run and keeps what was measured. With ``enough``, a process ends
    as soon as it has done its part, and time that is left goes to further processes until all is known well enough.
    """
    courses = tuple(Course(case) for case in cases) if earlier is None else tuple(earlier)
    members = sum(len(group) for group in groups)
    schedule = _Schedule(plan, start, on_progress, clock, starts=members * plan.processes, enough=enough)
    schedule.number_from(courses)
    try:
        with measuring():
            for group in groups:
                schedule.run_group([courses[i] for i in group], plan.budget_s * len(group) / members)
    except KeyboardInterrupt:
        return Run(courses, True)
    return Run(courses, False)


@final
class _Schedule:
    """Processes come and go here; nothing that is started outlives :meth:`run_processes`."""

    def __init__(
        self, plan: Plan, start: Start, on_progress: OnProgress, clock: Clock, starts: int, enough: Enough | None
    ) -> None:
        self._plan, self._start, self._on_progress, self._clock = plan, start, on_progress, clock
        self._enough = enough
        self._random = random.Random(plan.seed)
        self._process = 0
        self._starts, self._started, self._starting_s = starts, 0, 0.0
        self._measured_s = 0.0

    def number_from(self, courses: Sequence[Course]) -> None:
        """Number processes after those that ``courses`` have been measured in before."""
        self._process = max((turn.process + 1 for course in courses for turn in course.turns), default=0)

    def run_group(self, courses: Sequence[Course], budget_s: float) -> None:
        """As many processes per case as planned; more while there is time left and too little known."""
        share_s = budget_s / self._plan.processes
        end_s = self._measured_s + budget_s
        for index in range(self._plan.processes):
            self.run_processes(courses, share_s, prove=index == self._plan.processes - 1)
        if self._enough is None:
            return
        while end_s - self._measured_s > BLOCK_NS / 1e9 and any(course.ended is None for course in courses):
            if self._enough.in_run(courses):
                return
            self.run_processes(courses, min(share_s, end_s - self._measured_s), prove=False)

    def run_processes(self, courses: Sequence[Course], budget_s: float, *, prove: bool) -> None:
        """One fresh process per case that has not ended: open, take turns, prove, close."""
        live: dict[int, Worker] = {}
        try:
            for index, course in enumerate(courses):
                self._open(index, course, live)
            self._take_turns(courses, live, budget_s)
            if prove:
                self._prove(courses, live)
        finally:
            with shielded():
                for worker in live.values():
                    worker.close()
        self._process += 1

    def _open(self, index: int, course: Course, live: dict[int, Worker]) -> None:
        self._started += 1
        if course.ended is not None:
            return
        self._report(f"opening {label(course.case)}")
        began = self._clock()
        with shielded():  # a worker that nobody has noted is one that nobody ends
            live[index] = self._start()
        opened = self._ask(index, course, live, Open(course.case), Opened, self._plan.open_timeout_s)
        if opened is not None:
            course.openings.append(opened)
        self._starting_s += self._clock() - began

    def _take_turns(self, courses: Sequence[Course], live: dict[int, Worker], budget_s: float) -> None:
        """Rounds of one block per case until ``budget_s`` is spent; everyone gets at least one.

        A round is taken by cases that can be compared. Who had least time so far is next, so that a slow model does not
        use up the budget of a fast one.
        """
        began = self._clock()
        already_s = self._measured_s
        look_s = FIRST_LOOK_S
        turns: dict[object, _Rounds] = {courses[index].comparable: _Rounds() for index in live}
        while live:
            waiting = {courses[index].comparable for index in live}
            rivals = min(sorted(waiting, key=repr), key=lambda key: turns[key].spent_s)
            own = turns[rivals]
            members = sorted(index for index in live if courses[index].comparable == rivals)
            for index in self._random.sample(members, len(members)):
                now_s = self._clock()
                if now_s - began >= budget_s and all(turns[key].count for key in waiting):
                    return
                self._measure_block(index, courses[index], live, own.count)
                own.spent_s += self._clock() - now_s
                self._measured_s = already_s + min(budget_s, self._clock() - began)
            own.count += 1
            if self._enough is not None and self._clock() - began >= look_s:
                if self._enough.in_process(courses, self._process):
                    return
                look_s = LOOK_AGAIN * (self._clock() - began)

    def _measure_block(self, index: int, course: Course, live: dict[int, Worker], number: int) -> None:
        self._report(f"measuring {label(course.case)}")
        timeout_s = self._plan.block_timeout_s + _FIRST_INFERENCES * course.openings[-1].first_inference_ns / 1e9
        block = self._ask(index, course, live, Measure(BLOCK_NS), Block, timeout_s)
        if block is not None:
            course.turns.append(
                Turn(
                    self._process, number, block.samples_ns, block.done, block.window_ns, block.readings,
                    block.device_ns, block.copy_ns,
                )
            )  # fmt: skip
            course.calls += block.calls
            course.peak_memory_bytes = max(course.peak_memory_bytes, block.peak_memory_bytes)

    def _prove(self, courses: Sequence[Course], live: dict[int, Worker]) -> None:
        """Ask what ran. A proof that fails does not undo the measurement; the report says that there is none."""
        for index, worker in live.items():
            course = courses[index]
            if course.execution is not None:
                continue
            self._report(f"checking what ran: {label(course.case)}")
            try:
                course.execution = worker.ask(Prove(), Proof, self._plan.open_timeout_s).execution
            except CaseEnded as exc:
                course.unproven = exc.reason

    def _ask(
        self,
        index: int,
        course: Course,
        live: dict[int, Worker],
        request: Request,
        expected: type[Expected],
        timeout_s: float,
    ) -> Expected | None:
        """The reply; None when the case ended over it, which is noted and its process closed."""
        try:
            return live[index].ask(request, expected, timeout_s)
        except CaseEnded as exc:
            course.ended = exc
            with shielded():
                live.pop(index).close()
            return None

    def _report(self, text: str) -> None:
        waiting = max(0, self._starts - self._started) * self._starting_s / max(1, self._started)
        left_s = max(0.0, self._plan.budget_s - self._measured_s) + waiting
        spent_s = self._measured_s + self._starting_s
        self._on_progress(Progress(text, spent_s / max(1e-9, spent_s + left_s), left_s))
