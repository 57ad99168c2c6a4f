"""The history file: what goes in comes out, from many writers, through damage and through versions."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit.profiler.history as module
from tests.profiler.recorded import case, elsewhere, report
from toolkit.errors import FileProblem, UsageError
from toolkit.files import data_folder
from toolkit.profiler.history import history_path, open_history, record_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "history.sqlite"


def test_a_run_comes_out_as_it_went_in(path: Path) -> None:
    failed = case("bad.onnx", status="failed", reason="it crashed", latency_ns=None, samples_ns=[], blocks=[])
    run = report(case(dims={"seq": 64}), failed)
    with open_history(path) as opened:
        assert opened.add(run) == 1
        assert opened.report(1) == run
        (entry, other) = opened.entries()
    assert (entry.run, entry.model, entry.target, entry.batch, entry.dims) == (1, "m.onnx", "cpu", 1, "seq=64")
    assert entry.fingerprint == run.environment.fingerprint
    assert entry.p50_ns is not None and entry.p50_low_ns is not None and entry.p50_low_ns < entry.p50_ns
    assert (other.status, other.p50_ns) == ("failed", None)


def test_entries_are_filtered_and_the_newest_come_first(path: Path) -> None:
    with open_history(path) as opened:
        for day in range(1, 6):
            cases = [case("a.onnx"), case("a.onnx", target="gpu"), case("b.onnx", model_sha256="abcd" * 16)]
            opened.add(report(*cases, time_utc=f"2026-11-0{day}T00:00:00+00:00"))
        assert [item.run for item in opened.entries(model="a.onnx", target="gpu")] == [5, 4, 3, 2, 1]
        assert [item.run for item in opened.entries(limit=2)] == [5, 5, 5, 4, 4, 4]
        assert {item.model for item in opened.entries(model="ABCDab")} == {"b.onnx"}
        assert opened.entries(model="abc") == opened.entries(model="%") == opened.entries(model="a_onnx") == []
        since = opened.entries(model="a.onnx", target="cpu", since="2026-11-04")
        assert [item.run for item in since] == [5, 4]


def test_pruning_keeps_the_newest_and_never_gives_a_number_twice(path: Path) -> None:
    with open_history(path) as opened:
        for day in (1, 2, 3):
            opened.add(report(case(), time_utc=f"2026-11-0{day}T00:00:00+00:00"))
        assert opened.prune(before="2026-11-02") == 1
        assert opened.prune(keep=1) == 1
        assert [item.run for item in opened.entries()] == [3]
        assert opened.prune(keep=0) == 1
        assert opened.add(report(case())) == 4
        with pytest.raises(UsageError, match="the history has no such run; got 3"):
            opened.report(3)


def test_many_processes_write_at_once_into_a_file_that_none_has_made(path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.profiler.recorded import case, report\n"
        "from toolkit.profiler.history import record_run\n"
        "for seed in range(5): assert record_run(report(case(seed=seed)), Path(sys.argv[1]))"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    }
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    with open_history(path) as opened:
        assert sorted(item.run for item in opened.entries()) == list(range(1, 21))
        assert opened.report(20).cases[0].samples_ns


@pytest.mark.parametrize("content", [b"this is no database, but a text of some length" * 9, b"SQLite format 3\0" * 300])
def test_a_damaged_file_is_one_warning(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="this run is not in the history: .* the history is damaged") as caught:
        assert record_run(report(case()), path) is None
    assert len(caught) == 1 and "move it away" in str(caught[0].message)
    assert path.read_bytes() == content
    with pytest.raises(FileProblem, match="the history is damaged"), open_history(path):
        pass


def test_pages_that_were_overwritten_are_noticed(path: Path) -> None:
    for seed in range(3):
        record_run(report(case(seed=seed, processes=9, rounds=99)), path)
    size = path.stat().st_size
    with path.open("r+b") as handle:
        handle.seek(4096)
        handle.write(b"\xff" * (size - 4096))
    with pytest.raises(FileProblem, match="the history is damaged"), open_history(path) as opened:
        opened.report(2)


def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="another program's database"):
        record_run(report(case()), path)
    assert path.read_bytes() == before


def test_a_newer_file_is_left_alone(path: Path) -> None:
    record_run(report(case()), path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.warns(
        UserWarning, match=f"written by a newer toolkit; got version 99; expected up to {module.VERSION}"
    ):
        assert record_run(report(case()), path) is None


def test_an_older_file_gets_the_steps_it_lacks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_run(report(case()), path)
    step = ("ALTER TABLE runs ADD COLUMN note TEXT",)
    monkeypatch.setattr(module, "_MIGRATIONS", (*module._MIGRATIONS, step))
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    with open_history(path) as opened:
        assert opened.report(1).cases[0].model == "m.onnx"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (module.VERSION,)
        assert connection.execute("SELECT note FROM runs").fetchall() == [(None,)]


def test_a_file_from_before_streams_were_a_column(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = report(case(scenario="multi-stream", streams=4))
    with monkeypatch.context() as patched:
        patched.setattr(module, "_MIGRATIONS", module._MIGRATIONS[:1])
        patched.setattr(module, "VERSION", 1)
        patched.setattr(module, "_row", lambda number, item, row=module._row: row(number, item)[:-1])
        record_run(run, path)
    record_run(run, path)
    with open_history(path) as opened:
        assert [(item.run, item.streams) for item in opened.entries()] == [(2, 4), (1, None)]
        assert opened.report(1) == opened.report(2) == run


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_run(report(case()), path)
    broken = ("ALTER TABLE runs ADD COLUMN note TEXT", "NO SUCH THING")
    with monkeypatch.context() as patched:
        patched.setattr(module, "_MIGRATIONS", (*module._MIGRATIONS, broken))
        patched.setattr(module, "VERSION", module.VERSION + 1)
        with pytest.raises(FileProblem), open_history(path):
            pass
    with open_history(path) as opened:
        assert opened.report(1)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_HISTORY", str(tmp_path / "h"))
    assert history_path() == tmp_path / "h"
    monkeypatch.setenv("TOOLKIT_HISTORY", "off")
    assert history_path() is None and record_run(report(case()), True) is None
    monkeypatch.delenv("TOOLKIT_HISTORY")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert history_path() == tmp_path / "toolkit" / "history.sqlite" == data_folder() / "history.sqlite"


def test_a_library_call_records_nothing_unless_told(path: Path) -> None:
    assert record_run(report(case()), False) is None
    nothing = report(case(status="failed", latency_ns=None, samples_ns=[], blocks=[]))
    assert record_run(nothing, path) is None and not path.exists()
    assert record_run(report(case(), environment=elsewhere()), path) == 1
