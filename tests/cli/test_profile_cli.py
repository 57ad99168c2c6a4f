"""``toolkit profile``: options, output, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

import toolkit.cli.profile as command
from toolkit.cli import main
from toolkit.cli.profile import parse_batches, parse_budget
from toolkit.errors import UsageError
from toolkit.profiler.records import ProfileReport
from toolkit.providers.null import NullModel
from toolkit.tensors import TensorSpec


@pytest.fixture
def model(tmp_path: Path) -> str:
    specs = (TensorSpec("x", "float32", ("batch", 4)),)
    path = tmp_path / "model.json"
    path.write_bytes(msgspec.json.encode(NullModel(specs, specs, delay_ns=1_000_000)))
    return str(path)


QUICK = ("--budget", "0.3s", "--processes", "1", "--target", "null")


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main.run(["profile", *args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), ("1.5m", 90), ("2 min", 120), ("1h", 3600)])
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-3s", "0s", "3 days", "1e3"])
def test_budgets_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--budget: cannot read this time"):
        parse_budget(text)


def test_batches() -> None:
    assert parse_batches("1, 8,8") == (1, 8)
    assert parse_batches(None) is None
    for text in ("", "1,", "0", "a", "-1"):
        with pytest.raises(UsageError, match="--batch: cannot read these sizes"):
            parse_batches(text)


def test_a_table_on_stdout_and_a_page_in_a_file(capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, out, err = outcome(capsys, model, *QUICK, "--batch", "1,2", "-o", str(page))
    assert code == 0
    assert "model.json  float32  batch 2" in out
    assert err == f"written to {page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_can_be_piped(capsys: pytest.CaptureFixture[str], model: str) -> None:
    code, out, err = outcome(capsys, model, *QUICK, "--format", "json", "--seed", "3")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["schema_version"] == 2
    assert found["settings"]["seed"] == 3
    assert found["cases"][0]["latency_ns"]["p50"] >= 1_000_000


def test_operators_are_asked_for_by_a_flag(capsys: pytest.CaptureFixture[str], model: str) -> None:
    code, out, _ = outcome(capsys, model, *QUICK, "--operators")
    assert code == 0
    assert "no time per operator: only ONNX files have nodes to tell apart" in " ".join(out.split())


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["absent.onnx"], 2, "absent.onnx: no such model file"),
        (["MODEL", "--target", "nulll"], 2, "unknown target"),
        (["MODEL", "--target", "cuda:99"], 1, "cuda is not available"),
        (["MODEL", "--target", "null", "-o", "report.pdf"], 2, "the suffix names no format"),
        (["MODEL", "--target", "null", "-o", "/no/such/folder/report.html"], 2, "directory does not exist"),
        (["MODEL", "--target", "null", "--budget", "soon"], 2, "cannot read this time"),
        (["MODEL", "--target", "null", "--baseline", "other"], 2, "no measured case is called that"),
        (["MODEL", "--processes", "0"], 2, "--processes"),
        ([], 2, "MODEL"),
    ],
)
def test_misuse_and_absence_are_one_line(
    capsys: pytest.CaptureFixture[str], model: str, args: list[str], code: int, message: str
) -> None:
    found, out, err = outcome(capsys, *[model if arg == "MODEL" else arg for arg in args])
    assert (found, out) == (code, "")
    assert err.count("\n") == 1
    assert message in err


def test_a_failed_case_is_shown_and_makes_the_exit_code_1(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    code, out, err = outcome(capsys, model, str(bad), *QUICK)
    assert code == 1
    assert "Failed:" in out and "model.json  float32" in out
    assert err.startswith("error: bad.json@null: 1 of 2 cases failed") and err.count("\n") == 1


def test_nothing_that_could_be_measured_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "zoo:cnn", *QUICK)
    assert code == 1
    assert "Nothing was measured." in out
    assert "nothing could be measured; got null runs ONNX files; toolkit export makes one of this source" in err


def test_an_interrupted_run_prints_what_it_has(
    capsys: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = command.run_profile

    def interrupted(*args: object, **options: object) -> ProfileReport:
        return msgspec.structs.replace(measured(*args, **options), interrupted=True)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "run_profile", interrupted)
    code, out, _ = outcome(capsys, model, *QUICK)
    assert code == 130
    assert "Interrupted: this is what had been measured so far." in out
