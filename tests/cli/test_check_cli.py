"""``toolkit check``: real models on a real engine; exit codes, doubt, records, summaries for CI."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.cli.chains import chain
from tests.profiler.recorded import elsewhere
from toolkit.cli import main
from toolkit.cli.check import parse_effort, parse_slowdown
from toolkit.errors import UsageError
from toolkit.profiler.checking import Effort
from toolkit.profiler.reading import read_report
from toolkit.providers.null import NullModel
from toolkit.tensors import TensorSpec

# Time is doubled while there is doubt, so a busy machine takes longer and answers the same.
QUICK = ("--budget", "2s", "--max-budget", "1m", "--processes", "2", "--no-history")
MS = 1_000_000


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """``fast``, a ``twin`` of it, and ``slow``, which computes five times as much."""
    fast = chain(tmp_path / "fast.onnx", 4, 256)
    twin = shutil.copy(fast, tmp_path / "twin.onnx")
    return {"fast": str(fast), "twin": str(twin), "slow": str(chain(tmp_path / "slow.onnx", 20, 256))}


@pytest.fixture
def sleepers(tmp_path: Path) -> dict[str, str]:
    """The same without an engine: models that sleep for 1 and for 5 ms, whatever else the machine does."""
    specs = (TensorSpec("x", "float32", ("batch", 4)),)
    found = {}
    for name, delay_ns in (("fast", MS), ("twin", MS), ("slow", 5 * MS)):
        path = tmp_path / f"{name}.json"
        path.write_bytes(msgspec.json.encode(NullModel(specs, specs, delay_ns=delay_ns)))
        found[name] = str(path)
    return found


@pytest.fixture
def baseline(tmp_path: Path, sleepers: dict[str, str]) -> Path:
    path = tmp_path / "baseline.json"
    code = main.run(["profile", sleepers["fast"], "--target", "null", "--budget", "1s", "-o", str(path)])
    assert code == 0
    return path


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main.run(["check", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_slower_model_is_exit_3(capsys: pytest.CaptureFixture[str], models: dict[str, str]) -> None:
    code, out, err = outcome(capsys, models["fast"], models["slow"], "--max-slowdown", "50%", *QUICK)
    assert code == 3
    assert "slower: limit 1.5" in out
    assert err.startswith("error: slow.onnx@cpu: the check failed: slower: new/old ") and err.count("\n") == 1


def test_a_twin_and_a_faster_model_pass(capsys: pytest.CaptureFixture[str], models: dict[str, str]) -> None:
    code, out, err = outcome(
        capsys, models["fast"], models["twin"], "--max-slowdown", "200%", *QUICK, "--format", "json"
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["schema_version"] == 1 and found["answer"] == "passed" and found["paired"]
    (case,) = found["cases"]
    assert case["ratio_ci"][0] <= case["ratio"] <= case["ratio_ci"][1] <= 3
    assert outcome(capsys, models["slow"], models["fast"], "--max-slowdown", "0", *QUICK)[0] == 0


def test_one_file_may_be_held_against_itself(capsys: pytest.CaptureFixture[str], sleepers: dict[str, str]) -> None:
    assert (
        outcome(capsys, sleepers["fast"], sleepers["fast"], "--max-slowdown", "200%", *QUICK, "--target", "null")[0]
        == 0
    )


@pytest.mark.parametrize(("what", "code"), [("fail", 3), ("warn", 0)])
def test_doubt_takes_the_time_there_is_and_then_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], sleepers: dict[str, str], what: str, code: int
) -> None:
    """So few rounds have no interval, so it cannot but stay open."""
    found, out, err = outcome(
        capsys, sleepers["fast"], sleepers["twin"], "--target", "null", "--max-slowdown", "5%", "--budget", "0.1s",
        "--max-budget", "0.25s", "--processes", "1", "--on-inconclusive", what, "--no-history",
    )  # fmt: skip
    assert found == code
    assert "inconclusive: limit 1.05, 0.25 s of measuring" in out
    assert ("error: " if code else "warning: ") in err and "inconclusive" in err


def test_a_budget_that_is_not_given_follows_the_other() -> None:
    assert parse_effort(None, None) == Effort()
    assert parse_effort("5m", None) == Effort(budget_s=300, max_budget_s=300)
    assert parse_effort(None, "10s") == Effort(budget_s=10, max_budget_s=10)


def test_the_budget_is_doubled_up_to_the_maximum() -> None:
    assert Effort(budget_s=30, max_budget_s=120).totals() == [30, 60, 120]
    assert Effort(budget_s=30, max_budget_s=100).totals() == [30, 60, 100]
    assert Effort(budget_s=30, max_budget_s=10).totals() == [30]


def test_a_stored_record_stands_for_the_old_model(
    capsys: pytest.CaptureFixture[str], sleepers: dict[str, str], baseline: Path
) -> None:
    options = ("--baseline", str(baseline), "--max-slowdown")
    code, out, _ = outcome(capsys, sleepers["slow"], *options, "50%", *QUICK, "--processes", "3")
    assert code == 3 and "against a stored record" in out
    assert outcome(capsys, sleepers["twin"], *options, "400%", *QUICK, "--processes", "3")[0] == 0


def test_a_doctored_record_changes_the_answer_and_another_machine_is_refused(
    capsys: pytest.CaptureFixture[str], sleepers: dict[str, str], baseline: Path
) -> None:
    report = read_report(baseline)
    quick = [msgspec.structs.replace(case, samples_ns=[max(1, ns // 9) for ns in case.samples_ns])
             for case in report.cases]  # fmt: skip
    baseline.write_bytes(msgspec.structs.replace(report, cases=quick).to_json())
    options = (sleepers["fast"], "--baseline", str(baseline), "--max-slowdown", "50%", *QUICK, "--processes", "3")
    assert outcome(capsys, *options)[0] == 3
    baseline.write_bytes(msgspec.structs.replace(report, environment=elsewhere(python="2.7.18")).to_json())
    code, out, err = outcome(capsys, *options)
    assert (code, out) == (2, "")
    assert "--baseline: measured in different environments; got python 2.7.18 → " in err
    assert outcome(capsys, *options, "--max-slowdown", "900%", "--across-environments")[0] == 0


def test_what_was_not_measured_never_passes(
    capsys: pytest.CaptureFixture[str], models: dict[str, str], tmp_path: Path
) -> None:
    code, out, err = outcome(
        capsys, models["fast"], models["twin"], "--max-slowdown", "900%", *QUICK, "--target", "cpu", "--target",
        "cpu-int8",
    )  # fmt: skip
    assert code == 1
    assert "not measured" in out and "so the check cannot pass" in err and "the target takes int8" in err
    assert err.count("twin.onnx") == 1
    (line,) = [line for line in out.splitlines() if "int8" in line and "not measured" not in line]
    assert line.count("twin.onnx") == 1, line
    wide = str(chain(tmp_path / "wide.onnx", 2, 32))
    code, out, err = outcome(capsys, models["fast"], wide, "--max-slowdown", "900%", *QUICK)
    assert code == 1 and "different shapes" in err


def test_a_model_that_began_to_answer_nan_never_passes(
    capsys: pytest.CaptureFixture[str], models: dict[str, str], tmp_path: Path
) -> None:
    model = onnx.load(models["fast"])
    name = model.graph.node[-1].output[0]
    model.graph.node[-1].output[0] = "sound"
    model.graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    model.graph.node.append(helper.make_node("Add", ["sound", "nan"], [name]))
    bad = str(tmp_path / "bad.onnx")
    onnx.save(model, bad)
    code, out, err = outcome(capsys, models["fast"], bad, "--max-slowdown", "900%", *QUICK)
    assert code == 1 and "not measured" in out
    assert err == (
        f"error: bad.onnx@cpu: not everything was measured, so the check cannot pass; got output '{name}' holds NaN\n"
    )
    assert outcome(capsys, bad, bad, "--max-slowdown", "900%", *QUICK)[0] == 0


def test_junit(capsys: pytest.CaptureFixture[str], sleepers: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "check.xml"
    code, _, err = outcome(
        capsys,
        sleepers["fast"],
        sleepers["slow"],
        "--max-slowdown",
        "50%",
        *QUICK,
        "--target",
        "null",
        "--summary",
        "junit",
        "-o",
        str(path),
    )
    assert code == 3 and f"written to {path}" in err
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None and (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    failure = suite.find("testcase/failure")
    assert failure is not None and "slower" in str(failure.get("message"))


def test_github(
    capsys: pytest.CaptureFixture[str], sleepers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step.md"
    path.write_text("# before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    code, _, err = outcome(
        capsys,
        sleepers["fast"],
        sleepers["twin"],
        "--max-slowdown",
        "300%",
        *QUICK,
        "--target",
        "null",
        "--summary",
        "github",
    )
    assert code == 0
    assert path.read_text().startswith("# before\n### Latency check\n")
    assert "| twin.json@null |" in path.read_text()
    assert err.startswith("::notice title=toolkit check%3A twin.json@null::passed: new/old ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["A", "B", "--max-slowdown", "5"], "--max-slowdown: cannot read this share"),
        (["A", "--max-slowdown", "5%"], "wrong number of models; got 1; expected OLD and NEW"),
        (["A", "B", "--max-slowdown", "5%", "--baseline", "x.json"], "expected NEW alone"),
        (["A", "--max-slowdown", "5%", "--baseline", "absent.json"], "no such report"),
        (["A", "B", "--max-slowdown", "5%", "--summary", "junit"], "--summary: the summary needs a file"),
        (["A", "B", "--max-slowdown", "5%", "-o", "x.xml"], "-o: nothing says what to write"),
        (["A", "B", "--max-slowdown", "5%", "--max-budget", "soon"], "--max-budget: cannot read this time"),
        (["A", "B", "--max-slowdown", "-5%"], "cannot read this share; got '-5%'"),
        (
            ["A", "B", "--max-slowdown", "5%", "--budget", "6s", "--max-budget", "1s"],
            "--max-budget: less time in all than at first; got 1s; expected --budget 6s or more",
        ),
        (["A", "B"], "--max-slowdown"),
    ],
)
def test_misuse_is_one_line(capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    code, out, err = outcome(capsys, *args)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_shares() -> None:
    assert (
        parse_slowdown("5%") == 0.05
        and parse_slowdown(" 0.5 % ") == 0.005
        and parse_slowdown("0") == parse_slowdown("0%") == 0
    )
    for text in ("", "5", "0.5", "%", "-5%", "-100%", "1e3%", "9" * 400 + "%"):
        with pytest.raises(UsageError, match="cannot read this share"):
            parse_slowdown(text)
