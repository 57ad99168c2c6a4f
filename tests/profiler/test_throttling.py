"""What holds a machine back: a container's quota, heat, a GPU's brakes; read from trees of files like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.profiler.throttling import Held, doubts, gpu_brakes, held


def thermal(root: Path, core: int, count: int) -> None:
    folder = root / f"cpu{core}" / "thermal_throttle"
    folder.mkdir(parents=True)
    (folder / "core_throttle_count").write_text(f"{count}\n")
    (folder / "package_throttle_count").write_text("1\n")
    (folder / "core_throttle_max_time_ms").write_text("99\n")  # a time, not a count


@pytest.mark.parametrize(
    ("stat", "expected"),
    [
        ("usage_usec 5\nnr_periods 40\nnr_throttled 3\nthrottled_usec 1500000\n", (3, 1.5)),  # v2
        ("nr_periods 40\nnr_throttled 3\nthrottled_time 1500000000\n", (3, 1.5)),  # v1
        ("usage_usec 5\n", (None, None)),  # v2 without a quota controller
    ],
)
def test_quota_counters_of_both_kinds(tmp_path: Path, stat: str, expected: tuple[int | None, float | None]) -> None:
    inner, outer = tmp_path / "a" / "b", tmp_path / "a"
    inner.mkdir(parents=True)
    (outer / "cpu.stat").write_text(stat)
    found = held(tmp_path / "no cpus", [inner, outer])  # the inner group has no such file: the next one tells
    assert (found.periods, found.seconds) == expected


def test_heat_is_counted_over_cores_and_packages(tmp_path: Path) -> None:
    thermal(tmp_path, 0, 4)
    thermal(tmp_path, 12, 5)
    (tmp_path / "cpufreq").mkdir()
    assert held(tmp_path, []).hot == 11
    assert held(tmp_path / "none", []) == Held()


def test_only_what_grew_meanwhile_is_a_doubt() -> None:
    before = Held(periods=10, seconds=3.0, hot=7)
    assert doubts(before, before, 10.0) == []
    assert doubts(before, Held(periods=10, seconds=3.05, hot=7), 10.0) == []  # half a percent of the time
    quota, heat = doubts(before, Held(periods=35, seconds=5.5, hot=9), 10.0)
    assert quota == "the container's CPU quota stopped this run 25 times, 2.5 s in all: fewer threads or a larger quota"
    assert heat == "the CPU slowed down for heat 2 times meanwhile"
    assert doubts(Held(), Held(periods=9, seconds=9.0, hot=9), 1.0) == []  # nothing to compare with


def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")


def test_a_gpus_brakes_as_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "0, Not Active, Not Active, Not Active, Not Active\n1, Active, Not Active, Not Active, Active"
    nvidia_smi(tmp_path, monkeypatch, f"echo '{lines}'")
    assert gpu_brakes() == ("GPU 1 ran below its clock: too hot (hardware), power limit",)
    assert doubts(Held(), Held(gpus=gpu_brakes()), 1.0) == [
        "GPU 1 ran below its clock: too hot (hardware), power limit"
    ]


@pytest.mark.parametrize("script", ["exit 9", "echo '0, [N/A], [N/A], [N/A], [N/A]'"])
def test_an_nvidia_smi_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    nvidia_smi(tmp_path, monkeypatch, script)
    assert gpu_brakes() == ()


def test_no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_brakes() == ()
