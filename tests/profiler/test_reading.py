"""Reports read back: the current schema, the first one, damaged ones, and those of the future."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toolkit
from toolkit.errors import FileProblem, InvalidData
from toolkit.profiler.reading import read_report
from toolkit.profiler.records import ProfileReport

NullModelFile = Callable[..., str]
# What came with schema 2; a file of schema 1 has none of it.
NEW_IN_CASES = (
    "device_memory_bytes", "device_latency_ns", "copy_ns", "model_sha256", "size_bytes", "scenario", "streams",
    "operators", "energy", "price", "accuracy",
)  # fmt: skip
NEW_IN_LATENCY = ("p95", "p95_ci", "p99_9", "p99_9_ci", "jitter")


@pytest.fixture
def report(null_model: NullModelFile) -> ProfileReport:
    return toolkit.profile(null_model(delay_ns=1_000_000), "null", budget_s=0.2, processes=1)


def first_schema(report: ProfileReport) -> dict[str, Any]:
    plain = json.loads(report.to_json())
    plain["schema_version"] = 1
    for name in ("sweeps", "peaks", "request", "time_utc"):
        del plain[name]
    for case in plain["cases"]:
        for name in NEW_IN_CASES:
            del case[name]
        for name in NEW_IN_LATENCY:
            del case["latency_ns"][name]
    return plain


def written(folder: Path, content: object) -> Path:
    path = folder / "report.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_was_written_is_read(report: ProfileReport, tmp_path: Path) -> None:
    assert read_report(written(tmp_path, report.to_json().decode())) == report


def test_the_first_schema_is_read(report: ProfileReport, tmp_path: Path) -> None:
    found = read_report(written(tmp_path, first_schema(report)))
    assert found.schema_version == 1
    (case,), (now,) = found.cases, report.cases
    assert (case.samples_ns, case.blocks, case.execution) == (now.samples_ns, now.blocks, now.execution)
    assert (case.model_sha256, case.scenario, found.time_utc) == ("", "single-stream", "")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a readable profile report"),
        (lambda text: "not json", "not a readable profile report"),
        (lambda text: "[1, 2]", "not a readable profile report"),
        (lambda text: '{"schema_version": 2}', "missing required field"),
        (lambda text: text.replace('"schema_version":2', '"schema_version":99'), "written by a newer toolkit"),
        (lambda text: text.replace('"status":"ok"', '"status":"fine"'), "Invalid enum value"),
        (lambda text: text.replace('"samples_ns":[', '"samples_ns":[7,'), "blocks of"),
        (lambda text: text.replace('"samples_ns":[', '"samples_ns":[-').replace("[--", "[-"), "a sample of -"),
    ],
)
def test_damage_is_one_clear_line(
    report: ProfileReport, tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    path = written(tmp_path, damage(report.to_json().decode()))
    with pytest.raises(InvalidData, match=message) as caught:
        read_report(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("taken", [None, {}])
def test_percentiles_that_are_gone_are_computed_again(report: ProfileReport, tmp_path: Path, taken: object) -> None:
    plain = json.loads(report.to_json())
    plain["cases"][0]["latency_ns"] = taken
    assert read_report(written(tmp_path, plain)) == report
    plain["cases"][0] |= {"samples_ns": [], "blocks": []}
    with pytest.raises(InvalidData, match="the report is damaged; got no samples"):
        read_report(written(tmp_path, plain))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="no such report"):
        read_report(tmp_path / "absent.json")
