"""Readers that go away and disks that are full, with real processes: exit codes, files and the history stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from toolkit.profiler.history import open_history
from toolkit.providers.null import NullModel
from toolkit.tensors import TensorSpec

FULL = Path("/dev/full")
QUICK = ("--target", "null", "--budget", "0.3s", "--processes", "1")


def null_model(folder: Path, name: str, delay_ns: int) -> str:
    specs = (TensorSpec("x", "float32", ("batch", 4)),)
    path = folder / name
    path.write_bytes(msgspec.json.encode(NullModel(specs, specs, delay_ns=delay_ns)))
    return str(path)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    return [null_model(tmp_path, "fast.json", 1_000_000), null_model(tmp_path, "slow.json", 5_000_000)]


def toolkit(folder: Path, *args: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str]:
    """Exit code and stderr of a command whose results go to ``stdout``."""
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cli.main", *args], stdout=stdout, stderr=stderr, text=True, timeout=60,
        env=os.environ | {"TOOLKIT_HISTORY": str(folder / "history.sqlite")}, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def closed() -> int:
    """The writing end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return write


def check(models: list[str], xml: Path) -> tuple[str, ...]:
    return ("check", *models, "--max-slowdown", "50%", "--max-budget", "3s", "--summary", "junit", "-o", str(xml),
            *QUICK)  # fmt: skip


def test_a_broken_pipe_costs_a_check_nothing(tmp_path: Path, models: list[str], closed: int) -> None:
    xml = tmp_path / "check.xml"
    code, err = toolkit(tmp_path, *check(models, xml), stdout=closed)
    assert code == 3 and "the check failed: slower" in err and "Traceback" not in err and "ignored" not in err
    suite = ElementTree.parse(xml).getroot().find("testsuite")
    assert suite is not None and suite.get("failures") == "1"
    with open_history(tmp_path / "history.sqlite") as opened:
        assert len(opened.entries()) == 2


def test_a_broken_pipe_changes_no_exit_code(tmp_path: Path, models: list[str], closed: int) -> None:
    assert toolkit(tmp_path, "profile", models[0], *QUICK, stdout=closed) == (0, "")
    for more in (("show", "1", "--format", "json"), ("--format", "csv"), ("--format", "json"), ()):
        assert toolkit(tmp_path, "history", *more, stdout=closed) == (0, "")
    assert toolkit(tmp_path, "compare", "1", "nothere", stdout=closed, stderr=closed)[0] == 2


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path, models: list[str]) -> None:
    line = "error: standard output: the result cannot be written; got No space left on device\n"
    with FULL.open("w") as full:
        assert toolkit(tmp_path, "profile", models[0], *QUICK, stdout=full.fileno()) == (1, line)
        xml = tmp_path / "check.xml"
        code, err = toolkit(tmp_path, *check(models, xml), stdout=full.fileno())
        assert (code, err) == (1, f"written to {xml}\n{line}")
        assert toolkit(tmp_path, "profile", models[0], *QUICK, stdout=full.fileno(), stderr=full.fileno())[0] == 1
    assert xml.exists()
