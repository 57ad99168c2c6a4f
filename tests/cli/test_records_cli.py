"""``toolkit history``, ``toolkit compare``, and what ``toolkit profile`` keeps and goes on with."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest

from tests.profiler.recorded import case, elsewhere, report
from toolkit.cli import main
from toolkit.cli.history import parse_moment
from toolkit.errors import UsageError
from toolkit.profiler.history import open_history
from toolkit.profiler.reading import read_report
from toolkit.providers.null import NullModel
from toolkit.tensors import TensorSpec

QUICK = ("--target", "null", "--budget", "0.3s", "--processes", "1")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of each test's own."""
    path = tmp_path / "history.sqlite"
    monkeypatch.setenv("TOOLKIT_HISTORY", str(path))
    return path


@pytest.fixture
def model(tmp_path: Path) -> str:
    specs = (TensorSpec("x", "float32", ("batch", 4)),)
    path = tmp_path / "model.json"
    path.write_bytes(msgspec.json.encode(NullModel(specs, specs, delay_ns=1_000_000)))
    return str(path)


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main.run(list(args))
    out, err = capsys.readouterr()
    return code, out, err


def fill(path: Path) -> None:
    """Runs 1 to 3 here, run 4 on another machine."""
    with open_history(path) as opened:
        for day, ms in ((1, 10), (2, 10.2), (3, 14)):
            opened.add(report(case("m.onnx", ms, seed=day), time_utc=f"2026-11-0{day}T09:30:00+00:00"))
        other = elsewhere(python="2.7.18")
        opened.add(report(case("m.onnx", 5), environment=other, time_utc="2026-11-04T09:30:00+00:00"))


def test_a_run_is_kept_unless_told_otherwise(capsys: pytest.CaptureFixture[str], model: str, file: Path) -> None:
    assert outcome(capsys, "profile", model, *QUICK, "--no-history")[0] == 0
    assert not file.exists()
    assert outcome(capsys, "history")[:2] == (0, "Nothing in the history fits.\n")
    assert outcome(capsys, "profile", model, *QUICK)[0] == 0
    _, out, _ = outcome(capsys, "history")
    assert "model.json" in out and " null " in out and all(len(line) <= 80 for line in out.splitlines())
    _, shown, _ = outcome(capsys, "history", "show", "1")
    assert "model.json  float32  batch 1" in shown
    _, plain, _ = outcome(capsys, "history", "show", "1", "--format", "json")
    assert json.loads(plain)["cases"][0]["samples_ns"]


def test_a_damaged_history_costs_a_warning_and_not_the_run(
    capsys: pytest.CaptureFixture[str], model: str, file: Path
) -> None:
    file.write_bytes(b"no database at all, whatever it is " * 40)
    code, out, err = outcome(capsys, "profile", model, *QUICK)
    assert code == 0 and "model.json" in out
    assert err.count("\n") == 1 and err.startswith("warning: this run is not in the history: ")
    assert outcome(capsys, "history")[0] == 2


def test_lists_are_filtered_and_can_be_piped(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    fill(file)
    _, out, _ = outcome(capsys, "history", "--format", "json", "--limit", "2")
    assert [entry["run"] for entry in json.loads(out)["entries"]] == [4, 3]
    _, out, _ = outcome(capsys, "history", "--model", "m.onnx", "--since", "2026-11-03", "--format", "csv")
    assert [row["run"] for row in csv.DictReader(io.StringIO(out))] == ["4", "3"]
    assert "Nothing" in outcome(capsys, "history", "--target", "gpu")[1]


def test_a_trend_is_drawn_over_equal_environments(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    fill(file)
    code, out, _ = outcome(capsys, "history", "trend", "m.onnx", "--target", "cpu")
    assert code == 0 and all(len(line) <= 80 for line in out.splitlines())
    here, there = out.strip().split("\n\n")
    assert here.count("●") == 3 and there.count("●") == 1
    positions = [line.index("●") for line in here.splitlines() if "●" in line]
    assert positions == sorted(positions)
    assert "0123456789abcdef" in there and "2026-11-04" in there


def test_scenarios_are_told_apart(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    kinds = [case(scenario="offline"), case(scenario="multi-stream", streams=4), case()]
    named = [msgspec.structs.replace(item, id=f"{item.id}{number}") for number, item in enumerate(kinds)]
    with open_history(file) as opened:
        opened.add(report(*named))
    _, out, _ = outcome(capsys, "history")
    offline, multi, single = out.splitlines()[-3:]
    assert " b1 offline " in offline and " b1 4 streams " in multi and " b1  " in single
    assert all(len(line) <= 80 for line in out.splitlines())
    _, out, _ = outcome(capsys, "history", "trend", "m.onnx")
    assert out.count("●") == 3 and len(out.strip().split("\n\n")) == 3 and "  b1  4 streams  " in out


def test_a_trend_has_one_order(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    fill(file)
    _, out, _ = outcome(capsys, "history", "trend", "m.onnx", "--format", "csv")
    assert [row["run"] for row in csv.DictReader(io.StringIO(out))] == ["1", "2", "3", "4"]
    _, out, _ = outcome(capsys, "history", "trend", "m.onnx", "--format", "json", "--limit", "2")
    assert [entry["run"] for entry in json.loads(out)["entries"]] == [3, 4]


def test_records_without_a_common_case_say_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    one, none = tmp_path / "one.json", tmp_path / "none.json"
    one.write_bytes(report(case()).to_json())
    failed = case(status="failed", reason="it crashed", latency_ns=None, samples_ns=[], blocks=[])
    none.write_bytes(report(failed).to_json())
    line = "error: compare: the records have no case in common; got nothing that was measured; expected m.onnx@cpu\n"
    assert outcome(capsys, "compare", str(one), str(none)) == (2, "", line)


def test_pruning(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert outcome(capsys, "history", "prune", "--keep", "1") == (0, "", "0 runs deleted\n")
    fill(file)
    assert outcome(capsys, "history", "prune", "--before", "2026-11-02") == (0, "", "1 run deleted\n")
    assert outcome(capsys, "history", "prune", "--keep", "1") == (0, "", "2 runs deleted\n")
    assert outcome(capsys, "history", "prune")[0] == 2


def test_compare_takes_files_and_runs(capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    fill(file)
    path = tmp_path / "new.json"
    path.write_bytes(report(case("m.onnx", 14, seed=9)).to_json())
    code, out, _ = outcome(capsys, "compare", "1", str(path))
    assert code == 0 and "slower" in out and "nothing cancels" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    code, out, _ = outcome(capsys, "compare", "1", "2", "--format", "json")
    found = json.loads(out)
    assert found["changes"][0]["verdict"] == "no significant difference" and found["environment"] == []


def test_a_record_without_percentiles_has_those_of_its_samples(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path
) -> None:
    whole, bare = tmp_path / "whole.json", tmp_path / "bare.json"
    assert outcome(capsys, "profile", model, *QUICK, "-o", str(whole))[0] == 0
    plain = json.loads(whole.read_text())
    del plain["cases"][0]["latency_ns"]
    bare.write_text(json.dumps(plain))
    _, out, _ = outcome(capsys, "compare", str(whole), str(bare), "--format", "json")
    old, new = json.loads(out)["changes"][0]["p50_ns"]
    assert old == new > 0
    assert outcome(capsys, "profile", "--resume", str(bare), "--budget", "0.3s")[0] == 0
    plain["cases"][0] |= {"samples_ns": [], "blocks": []}
    bare.write_text(json.dumps(plain))
    for args in (("compare", str(whole), str(bare)), ("profile", "--resume", str(bare))):
        code, _, err = outcome(capsys, *args)
        assert code == 2 and "the report is damaged; got no samples" in err


def test_compare_refuses_other_environments_unless_told(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    fill(file)
    code, out, err = outcome(capsys, "compare", "3", "4")
    assert (code, out) == (2, "") and "python " in err and "→ 2.7.18" in err and err.count("\n") == 1
    code, out, _ = outcome(capsys, "compare", "3", "4", "--across-environments")
    assert code == 0 and "ENVIRONMENTS DIFFER" in out and "faster" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compare", "1", "2"], "the history is empty; got run 1"),
        (["compare", "a.json", "b.json"], "a.json: no such report"),
        (["history", "show", "7"], "the history is empty"),
        (["history", "--since", "yesterday"], "--since: cannot read this time"),
        (["history", "--limit", "0"], "--limit"),
        (["profile", "--resume", "absent.json"], "absent.json: no such report"),
        (["profile"], "MODEL"),
        (["profile", "nothere", "--budget", "1s"], "nothere: no such model"),
        (["check", "nothere", "other", "--max-slowdown", "5%"], "nothere: no such model"),
        (["profile", "zoo:cnn", "--seed", "-1"], "'--seed': -1 is not in the range x>=0"),
        (["verify", "a.onnx", "b.onnx", "--seed", "-1"], "'--seed': -1 is not in the range x>=0"),
        (["history", "show", "9" * 23], "is not in the range 1<=x<=9223372036854775807"),
        (["history", "--limit", "9" * 23], "--limit"),
        (["history", "prune", "--keep", "9" * 23], "--keep"),
        (["compare", "9" * 23, "1"], "no such run; got 99999"),
        (["compare", "9" * 5000, "1"], "no such run; got 99999"),
        (["compare", str(2**63), "1"], "no such run; got 9223372036854775808"),
    ],
)
def test_misuse_is_one_line(capsys: pytest.CaptureFixture[str], args: list[str], message: str, file: Path) -> None:
    if {"--since", str(2**63)} & set(args):
        fill(file)
    code, out, err = outcome(capsys, *args)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_no_history_is_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_HISTORY", "off")
    code, _, err = outcome(capsys, "history")
    assert code == 2 and "no history is kept here" in err


def test_resume_takes_models_and_options_from_the_report(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path
) -> None:
    path, further = tmp_path / "one.json", tmp_path / "two.json"
    assert outcome(capsys, "profile", model, *QUICK, "--batch", "2", "--seed", "7", "-o", str(path))[0] == 0
    assert outcome(capsys, "profile", "--resume", str(path), "-o", str(further))[0] == 0
    before, after = read_report(path), read_report(further)
    assert after.settings["seed"] == 7 and after.settings["processes"] == 1 and after.cases[0].batch == 2
    assert after.cases[0].calls > before.cases[0].calls
    code, out, err = outcome(capsys, "profile", "--resume", str(path), "--seed", "8")
    assert (code, out) == (2, "") and "seed differs; got 8; expected 7" in err
    code, _, err = outcome(capsys, "profile", "--resume", str(path), "--batch", "4")
    assert code == 2 and "model.json@null[batch=4] not in it" in err


def test_moments() -> None:
    assert parse_moment("2026-11-25", "--since") == "2026-11-25T00:00:00+00:00"
    assert parse_moment("2026-11-25T14:00+02:00", "--since") == "2026-11-25T12:00:00+00:00"
    assert parse_moment(None, "--since") == ""
    assert parse_moment("2w", "--since") < parse_moment("7d", "--since") < parse_moment("1h", "--since")
    for text in ("soon", "7x", "999999w", "2026-13-01"):
        with pytest.raises(UsageError, match="--since: cannot read this time"):
            parse_moment(text, "--since")
