"""What is read from the machine: environment, other load, memory, threads that spin."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import toolkit.profiler.environment as environment_module
from toolkit.profiler.clock import now_ns, reading_cost_ns
from toolkit.profiler.environment import environment, gpus, packages
from toolkit.profiler.interference import Interference, Usage, between, usage, worst
from toolkit.profiler.memory import peak_memory_bytes
from toolkit.profiler.quiet import running_threads, wait_until_quiet


def test_the_environment_says_what_numbers_depend_on() -> None:
    found = environment()
    assert found.cpu and found.usable_cores >= 1 and found.memory_bytes > 0
    assert found.packages["numpy"] and "msgspec" not in found.packages
    assert "load_average" in found.state


def test_the_fingerprint_changes_with_the_facts_and_not_with_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment()
    monkeypatch.setattr(environment_module, "state", lambda: {"load_average": [99.0]})
    assert environment().fingerprint == first.fingerprint
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment().fingerprint != first.fingerprint


def test_versions_come_without_importing() -> None:
    code = "import sys, toolkit.profiler.environment as e; e.environment(); print('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert "onnx-toolkit" in packages()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'NVIDIA X, 550.1, 81559 MiB, 700 W, 1980 MHz, Enabled'",
            {"name": "NVIDIA X", "driver_version": "550.1"},
        ),
        ("echo broken; exit 9", {"error": "nvidia-smi failed: broken"}),
    ],
)
def test_gpus_as_nvidia_smi_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: dict[str, str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (found,) = gpus()
    assert expected.items() <= found.items()


def test_no_nvidia_smi_means_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ()


def test_other_load_is_the_kernels_count_minus_our_own() -> None:
    before = Usage(busy_s=100.0, stolen_s=1.0, own_s=10.0, wall_s=0.0)
    after = Usage(busy_s=118.0, stolen_s=1.0, own_s=22.0, wall_s=10.0)
    found = between(before, after)
    assert found == Interference(other_cores=0.6, stolen_cores=0.0)
    assert found.doubts == ["other processes kept 0.60 cores busy meanwhile"]


def test_stolen_time_is_told_beside_other_load() -> None:
    busy, stolen = Interference(other_cores=0.5, stolen_cores=0.2).doubts
    assert "0.50 cores busy" in busy
    assert "the hypervisor gave 0.20 cores" in stolen
    assert Interference(other_cores=0.02, stolen_cores=0.01).doubts == []


def test_too_short_a_while_says_nothing() -> None:
    now = usage()
    assert between(now, now) is None
    assert between(None, now) is None


def test_usage_is_read_from_the_kernel(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 50 999 7 0 0 300 0 0\ncpu0 1 2 3\n")
    found = usage(stat)
    assert found is not None
    assert found.busy_s * 2 == pytest.approx(found.stolen_s)
    assert usage(tmp_path / "absent") is None


def test_peak_memory_counts_what_was_touched() -> None:
    code = (
        "from toolkit.profiler.memory import peak_memory_bytes as p\n"
        "before = p(); block = bytearray(b'x') * 100_000_000; del block; print(p() - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 90e6 < grown < 150e6
    assert peak_memory_bytes() > 10e6


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="thread states are read from /proc")
def test_a_thread_that_spins_is_waited_for() -> None:
    stop = threading.Event()

    def spin() -> None:
        end = time.monotonic() + 20
        while not stop.is_set() and time.monotonic() < end:
            pass

    wait_until_quiet()
    thread = threading.Thread(target=spin)
    thread.start()
    assert not wait_until_quiet(limit_s=0.05)
    stop.set()
    thread.join()
    assert wait_until_quiet()
    assert running_threads() == 0


def test_the_clock_goes_forward() -> None:
    assert 0 < reading_cost_ns() < 1_000_000
    assert now_ns() <= now_ns()


def test_what_each_look_says_again_is_said_once() -> None:
    """A check looks several times, and every run that goes on with another adds its own lines."""
    looks = [Interference(0.4, 0.06), Interference(1.25, 0.0), Interference(0.31, 0.07)]
    lines = [text for look in looks for text in look.doubts]
    other = ["hot 3 times", "hot 4 times", "hot 3 times"]
    assert worst([*lines, *other]) == [looks[1].doubts[0], looks[2].doubts[1], "hot 3 times", "hot 4 times"]
