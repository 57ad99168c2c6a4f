"""Going on with an earlier run: samples add up, and what is not the same run is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import toolkit
from tests.profiler.recorded import elsewhere
from toolkit.errors import InvalidData, UsageError
from toolkit.profiler.records import ProfileReport
from toolkit.profiler.resuming import requested
from toolkit.profiler.schedule import Progress
from toolkit.targets import Target

NullModelFile = Callable[..., str]
MS = 1_000_000
QUICK: dict[str, Any] = {"targets": "null", "budget_s": 0.5, "processes": 1}


@pytest.fixture
def files(null_model: NullModelFile) -> list[str]:
    return [null_model("a.json", delay_ns=MS), null_model("b.json", delay_ns=2 * MS)]


@pytest.fixture
def earlier(files: list[str]) -> ProfileReport:
    return toolkit.profile(files, **QUICK)


def test_samples_add_up_and_process_numbers_go_on(files: list[str], earlier: ProfileReport, tmp_path: Path) -> None:
    path = tmp_path / "earlier.json"
    path.write_bytes(earlier.to_json())
    report = toolkit.profile(files, **QUICK, resume=path)
    for case, before in zip(report.cases, earlier.cases, strict=True):
        assert case.samples_ns[: len(before.samples_ns)] == before.samples_ns
        assert case.calls > before.calls and case.execution == before.execution
        assert [process for process, _, _ in case.blocks] == sorted(process for process, _, _ in case.blocks)
        assert {process for process, _, _ in case.blocks} == {0, 1}
    (comparison,), (alone,) = report.comparisons, earlier.comparisons
    assert (comparison.processes, alone.processes) == (2, 1)
    assert comparison.rounds > alone.rounds
    assert report.settings["earlier_budget_s"] == 0.5
    again = toolkit.profile(files, **QUICK, resume=report)
    assert again.settings["earlier_budget_s"] == 1.0
    assert {process for process, _, _ in again.cases[0].blocks} == {0, 1, 2}


def test_what_was_asked_for_can_be_asked_again(files: list[str], earlier: ProfileReport) -> None:
    wanted = requested(msgspec.json.decode(earlier.to_json(), type=ProfileReport))
    assert wanted["models"] == files and wanted["batches"] is None and wanted["data"] is None
    assert [target.name for target in wanted["targets"]] == ["null"]
    assert len(toolkit.profile(**wanted, resume=earlier).cases) == 2


def test_a_case_that_failed_starts_anew(null_model: NullModelFile) -> None:
    file = null_model(delay_ns=MS)
    earlier = toolkit.profile(file, **QUICK)
    failed = msgspec.structs.replace(earlier.cases[0], status="failed", reason="it crashed", latency_ns=None)
    report = toolkit.profile(file, **QUICK, resume=msgspec.structs.replace(earlier, cases=[failed]))
    assert report.cases[0].status == "ok" and {block[0] for block in report.cases[0].blocks} == {0}


def test_interrupted_at_once_it_still_has_what_it_had(files: list[str], earlier: ProfileReport) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    report = toolkit.profile(files, **QUICK, resume=earlier, on_progress=stop)
    assert report.interrupted
    assert [case.samples_ns for case in report.cases] == [case.samples_ns for case in earlier.cases]
    assert [item.ratio for item in report.comparisons] == [item.ratio for item in earlier.comparisons]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "seed differs; got 5; expected 0"),
        ({"batches": [2]}, r"other cases; got a.json@null\[batch=2\], b.json@null\[batch=2\] not in it; a.json@null"),
        ({"targets": [Target(name="null", provider="null", threads=7)]}, "target null differs"),
        ({"targets": [Target(name="other", provider="null")]}, "other cases; got a.json@other, b.json@other not in it"),
    ],
)
def test_another_run_is_refused(
    files: list[str], earlier: ProfileReport, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        toolkit.profile(files, **(QUICK | changes), resume=earlier)
    assert str(caught.value).startswith("--resume: ") and "measure anew without --resume" in str(caught.value)


def test_another_model_under_the_same_name_is_refused(
    files: list[str], earlier: ProfileReport, null_model: NullModelFile
) -> None:
    null_model("b.json", delay_ns=3 * MS)
    with pytest.raises(UsageError, match="another run: b.json's content differs"):
        toolkit.profile(files, **QUICK, resume=earlier)


def test_another_machine_is_refused(files: list[str], earlier: ProfileReport) -> None:
    other = msgspec.structs.replace(earlier, environment=elsewhere(usable_cores=99))
    with pytest.raises(UsageError, match="--resume: measured in different environments; got usable cores 99 → "):
        toolkit.profile(files, **QUICK, resume=other)


def test_a_report_that_does_not_know_its_models_is_refused(files: list[str], earlier: ProfileReport) -> None:
    old = msgspec.structs.replace(
        earlier, cases=[msgspec.structs.replace(case, model_sha256="") for case in earlier.cases]
    )
    with pytest.raises(UsageError, match="expected unknown"):
        toolkit.profile(files, **QUICK, resume=old)
    with pytest.raises(InvalidData, match="does not say what was asked for"):
        requested(msgspec.structs.replace(earlier, request={}))
