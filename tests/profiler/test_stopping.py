from __future__ import annotations

import numpy as np
import pytest

from toolkit.profiler.cases import Case
from toolkit.profiler.process import CaseEnded
from toolkit.profiler.protocol import Opened
from toolkit.profiler.schedule import Course, Turn
from toolkit.profiler.stopping import Narrow
from toolkit.targets import Target

OPENED = Opened(
    import_ns=1, load_ns=2, first_inference_ns=3, precision="float32", batch=1, dims={}, shapes=[[1]],
    base_memory_bytes=1,
)  # fmt: skip


def course(model: str, noise: float, rounds: int = 60, processes: int = 3) -> Course:
    """Samples around 1 ms that scatter by ``noise``."""
    generator = np.random.default_rng(len(model))
    found = Course(Case(model=model, path=model, target=Target(name="t", provider="null")), openings=[OPENED])
    for process in range(processes):
        for number in range(rounds):
            values = 1e6 * (1 + noise * generator.standard_normal(20))
            found.turns.append(Turn(process, number, values.astype(int).tolist()))
    return found


@pytest.mark.parametrize(("noise", "enough"), [(0.01, True), (0.2, False)])
def test_a_run_is_enough_when_medians_and_ratios_are_known(noise: float, enough: bool) -> None:
    narrow = Narrow(0.02, 3, "", 0)
    assert narrow.in_run([course("a", 0.01), course("bb", noise)]) is enough


def test_a_ratio_without_interval_is_not_known() -> None:
    assert not Narrow(0.5, 1, "", 0).in_run([course("a", 0.01, rounds=5, processes=1), course("bb", 0.01, 5, 1)])


def test_a_process_may_stop_at_wider_intervals_than_the_run() -> None:
    narrow, courses = Narrow(0.005, 3, "", 0), [course("a", 0.035)]
    assert narrow.in_process(courses, 0)
    assert not Narrow(0.005, 1, "", 0).in_process(courses, 0)
    assert not narrow.in_process(courses, 7)  # it has measured nothing


def test_a_case_that_ended_is_not_waited_for() -> None:
    gone = course("bb", 0.3)
    gone.ended = CaseEnded("failed", "boom")
    assert Narrow(0.02, 3, "", 0).in_run([course("a", 0.01), gone])
