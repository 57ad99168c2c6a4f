"""What the kernel says about cores, memory and the CPU is read right, in containers too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import toolkit.machine as machine


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A table of files that stands for /proc and /sys: fill it, and that is all there is."""
    files: dict[str, str] = {}
    monkeypatch.setattr(machine, "_read", lambda path: files.get(str(path), "").strip())
    return files


def test_this_machine() -> None:
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)
    assert machine.memory_limit_bytes() > 1e8
    assert machine.cpu_model()
    assert set(machine.cpu_features()) <= set(machine.KERNEL_FEATURES)


def test_no_limits(kernel: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5}, raising=False)
    assert machine.container_quota() is None
    assert machine.usable_cores() == 4
    kernel["/proc/self/cgroup"] = "0::/"
    kernel["/sys/fs/cgroup/cpu.max"] = "max 100000"
    assert machine.container_quota() is None


@pytest.mark.parametrize(
    ("quota", "period", "affinity", "cores"),
    [(250_000, 100_000, 8, 2), (50_000, 100_000, 8, 1), (1_600_000, 100_000, 4, 4), (100_000, 50_000, 8, 2)],
)
def test_a_quota_of_cgroup_v2(
    kernel: dict[str, str], monkeypatch: pytest.MonkeyPatch, quota: int, period: int, affinity: int, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    kernel["/proc/self/cgroup"] = "0::/pod/app"
    kernel["/sys/fs/cgroup/pod/app/cpu.max"] = "max 100000"
    kernel["/sys/fs/cgroup/pod/cpu.max"] = f"{quota} {period}"
    assert machine.container_quota() == quota / period
    assert machine.usable_cores() == cores


def test_a_quota_of_cgroup_v1(kernel: dict[str, str]) -> None:
    kernel["/proc/self/cgroup"] = "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n"
    kernel["/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us"] = "150000"
    kernel["/sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us"] = "100000"
    assert machine.container_quota() == 1.5
    kernel["/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us"] = "-1"
    assert machine.container_quota() is None


def test_a_memory_limit(kernel: dict[str, str]) -> None:
    total = machine.memory_limit_bytes()
    kernel["/proc/self/cgroup"] = "0::/app"
    kernel["/sys/fs/cgroup/app/memory.max"] = "1000000000"
    assert machine.memory_limit_bytes() == 1_000_000_000
    kernel["/sys/fs/cgroup/app/memory.max"] = "max"
    assert machine.memory_limit_bytes() == total
    kernel["/sys/fs/cgroup/app/memory.max"] = str(1 << 62)  # what cgroup v1 says when there is no limit
    assert machine.memory_limit_bytes() == total


def test_an_x86_cpu(kernel: dict[str, str]) -> None:
    kernel["/proc/cpuinfo"] = "model name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 amx_bf16\n"
    assert machine.cpu_model() == "Xeon"
    assert machine.cpu_features() == ("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16")
    assert machine.has_bfloat16()


def test_an_arm_cpu(kernel: dict[str, str]) -> None:
    kernel["/proc/cpuinfo"] = "processor : 0\nFeatures : fp asimd asimddp i8mm bf16\n"
    assert machine.cpu_features() == ("asimd", "asimddp", "i8mm", "bf16")
    assert machine.has_bfloat16()


def test_a_cpu_that_says_nothing(kernel: dict[str, str]) -> None:
    assert machine.cpu_features() == ()
    assert not machine.has_bfloat16()
    assert machine.cpu_model()


def test_a_file_that_cannot_be_read_says_nothing() -> None:
    assert machine._read(Path("/nowhere/at/all")) == ""
