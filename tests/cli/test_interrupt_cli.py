"""Ctrl-C, with real signals to a real ``toolkit profile``: what was measured is saved, and no worker stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from toolkit.profiler.reading import read_report
from toolkit.providers.null import NullModel
from toolkit.tensors import TensorSpec

# Runs the command and tells on stderr where it stands, which it otherwise draws on terminals only.
DRIVER = """
import contextlib, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup, and then the command would too
import toolkit.cli.main as main, toolkit.cli.profile as command

@contextlib.contextmanager
def telling():
    yield lambda progress: print(progress.text, file=sys.stderr, flush=True)

command.measuring = telling
main.main()
"""
# Loaded by every Python process of the test, workers too: a proof that takes its time.
SLOW_PROOF = """
import time
from toolkit.providers.null import NullEngine
NullEngine.prove = lambda self, feeds: time.sleep(600)
"""
SPECS = (TensorSpec("x", "float32", ("batch", 4)),)
MOST_S = 20.0
"""Two seconds are promised; a machine that runs other tests beside this one gets more."""


def null_model(folder: Path, name: str, delay_ns: int) -> str:
    path = folder / name
    path.write_bytes(msgspec.json.encode(NullModel(SPECS, SPECS, delay_ns=delay_ns)))
    return str(path)


class Running:
    """A ``toolkit profile`` that goes on until it is interrupted."""

    def __init__(self, folder: Path, *args: str, patch: str = "") -> None:
        self.output = folder / "out.json"
        paths = [str(folder / "patch"), *(path for path in sys.path if path)]
        (folder / "patch").mkdir()
        (folder / "patch" / "sitecustomize.py").write_text(patch)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, "profile", *args, "--target", "null", "-o", str(self.output)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )

    def wait_for(self, text: str, times: int = 1) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            times -= text in line
            if times == 0:
                return
        raise AssertionError(f"it ended before it said {text!r}")

    def interrupt(self, again: int = 0, signum: int = signal.SIGINT) -> tuple[int, str]:
        """Ctrl-C, or another signal, and impatient ones behind it; the exit code and what was said."""
        self.workers = psutil.Process(self.process.pid).children(recursive=True)
        began = time.monotonic()
        for _ in range(1 + again):
            self.process.send_signal(signum)
            time.sleep(0.05)
        _, err = self.process.communicate(timeout=60)
        assert time.monotonic() - began < MOST_S
        return self.process.returncode, err

    def assert_no_worker_is_left(self) -> None:
        assert self.workers
        gone, alive = psutil.wait_procs(self.workers, timeout=5)
        assert not alive, gone


@pytest.fixture
def running() -> Iterator[list[Running]]:
    found: list[Running] = []
    yield found
    for item in found:
        item.process.kill()
        item.process.wait()


@pytest.mark.parametrize("again", [0, 4])
def test_while_measuring(tmp_path: Path, running: list[Running], again: int) -> None:
    model = null_model(tmp_path, "model.json", 1_000_000)
    run = Running(tmp_path, model, "--budget", "10m", "--processes", "1")
    running.append(run)
    run.wait_for("measuring", times=4)
    code, err = run.interrupt(again)
    assert (code, "Traceback" in err) == (130, False), err
    report = read_report(run.output)
    assert report.interrupted and len(report.cases[0].blocks) >= 3
    run.assert_no_worker_is_left()


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_ends_a_process_is_as_good_as_ctrl_c(
    tmp_path: Path, running: list[Running], monkeypatch: pytest.MonkeyPatch, signum: int, expected: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    run = Running(tmp_path, null_model(tmp_path, "model.json", 1_000_000), "--budget", "10m", "--processes", "1")
    running.append(run)
    run.wait_for("measuring", times=4)
    assert {path.name.rsplit("-", 1)[0] for path in scratch.iterdir()} >= {"toolkit-profile", "toolkit-widths"}
    code, err = run.interrupt(again=1, signum=signum)
    assert (code, "Traceback" in err) == (expected, False), err
    report = read_report(run.output)
    assert report.interrupted and len(report.cases[0].blocks) >= 3
    assert list(scratch.iterdir()) == []
    run.assert_no_worker_is_left()


def test_while_a_slow_model_opens_in_a_later_process(tmp_path: Path, running: list[Running]) -> None:
    """The first process of the fast model was measured; then it waits for the slow one, which never comes."""
    fast = null_model(tmp_path, "fast.json", 1_000_000)
    slow = null_model(tmp_path, "slow.json", 600_000_000_000)
    run = Running(tmp_path, fast, slow, "--budget", "1m")
    running.append(run)
    run.wait_for("opening slow.json")
    code, err = run.interrupt(again=1)
    assert (code, "Traceback" in err) == (130, False), err
    report = read_report(run.output)
    assert [case.reason for case in report.cases] == ["interrupted before it was measured"] * 2
    run.assert_no_worker_is_left()


def test_while_proving(tmp_path: Path, running: list[Running]) -> None:
    model = null_model(tmp_path, "model.json", 1_000_000)
    run = Running(tmp_path, model, "--budget", "0.3s", "--processes", "1", patch=SLOW_PROOF)
    running.append(run)
    run.wait_for("checking what ran")
    code, err = run.interrupt(again=1)
    assert (code, "Traceback" in err) == (130, False), err
    (case,) = read_report(run.output).cases
    assert case.status == "ok" and case.samples_ns and case.execution is None
    run.assert_no_worker_is_left()


def test_an_interrupted_run_can_go_on(tmp_path: Path, running: list[Running]) -> None:
    model = null_model(tmp_path, "model.json", 1_000_000)
    run = Running(tmp_path, model, "--budget", "10m", "--processes", "1")
    running.append(run)
    run.wait_for("measuring", times=4)
    run.interrupt()
    before = read_report(run.output)
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cli.main", "profile", "--resume", str(run.output), "--budget", "0.3s",
         "--format", "json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)
    assert not after["interrupted"]
    (case,), (earlier,) = after["cases"], before.cases
    assert case["samples_ns"][: len(earlier.samples_ns)] == earlier.samples_ns
    assert {block[0] for block in case["blocks"]} == {0, 1}
