"""Workers that take memory without end, in real processes: they are stopped, the others go on, the machine stays."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import toolkit
import toolkit.profiler.process as process_module
from toolkit.profiler.cases import Case
from toolkit.profiler.guard import allowance, resident_bytes
from toolkit.profiler.process import CaseEnded, ProcessWorker
from toolkit.profiler.protocol import Block, Measure, Open, Opened
from toolkit.targets import Target

NULL = Target(name="null", provider="null")
NullModelFile = Callable[..., str]
LIMIT = 600_000_000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are set on Linux alone")


@pytest.fixture
def worker() -> Iterator[ProcessWorker]:
    worker = ProcessWorker(memory_bytes=LIMIT)
    yield worker
    worker.close()


def opened(worker: ProcessWorker, path: str) -> None:
    worker.ask(Open(Case(model="m", path=path, target=NULL)), Opened, 60)


def test_memory_of_its_own_runs_out_with_an_error_that_says_so(
    worker: ProcessWorker, null_model: NullModelFile
) -> None:
    opened(worker, null_model(failure="allocate", fail_after=2))
    with pytest.raises(CaseEnded, match="ran out of memory") as caught:
        worker.ask(Measure(1_000_000), Block, 60)
    assert caught.value.status == "failed"


def test_shared_memory_which_no_limit_counts_is_watched(worker: ProcessWorker, null_model: NullModelFile) -> None:
    opened(worker, null_model(failure="share", fail_after=2))
    began = time.monotonic()
    with pytest.raises(CaseEnded, match=r"took [0-9.]+ GB of memory where 0.6 GB could be spared"):
        worker.ask(Measure(1_000_000), Block, 60)
    assert time.monotonic() - began < 30
    worker.close()


def test_the_kernel_is_told_whom_to_end_first(worker: ProcessWorker) -> None:
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text(encoding="ascii").strip() == "1000"
    own = Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip()
    assert own != "1000"


def test_a_worker_within_its_limit_is_left_alone(worker: ProcessWorker, null_model: NullModelFile) -> None:
    opened(worker, null_model(delay_ns=300_000_000))  # long enough to be looked at
    assert worker.ask(Measure(1), Block, 60).calls == 1


def test_the_allowance_is_less_than_what_is_free() -> None:
    found = allowance()
    assert found is not None and found > 0
    assert resident_bytes(1 << 30) == 0


@pytest.mark.parametrize("failure", ["allocate", "share"])
def test_a_case_that_takes_all_memory_costs_only_itself(
    null_model: NullModelFile, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    monkeypatch.setattr(process_module, "allowance", lambda: LIMIT)
    hungry = null_model("hungry.json", failure=failure, fail_after=20)
    fine = null_model("fine.json", delay_ns=1_000_000)
    report = toolkit.profile([hungry, fine], "null", budget_s=1, processes=1)
    assert [case.status for case in report.cases] == ["failed", "ok"]
    assert "memory" in report.cases[0].reason
