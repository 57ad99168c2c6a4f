"""What this process may use of the machine, and what the machine is: read from the kernel, nothing guessed."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# The CPU features that decide which int8 and bf16 kernels an engine picks; names as in /proc/cpuinfo.
KERNEL_FEATURES = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
    "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_SIZE_SHIFTS = {"K": 10, "M": 20, "G": 30}


def usable_cores() -> int:
    """Cores this process may keep busy: its affinity mask, cut to the container's CPU quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = container_quota()
    return max(1, cores if quota is None else min(cores, int(quota) or 1))


def container_quota() -> float | None:
    """CPU quota of the innermost control group in cores, or None where there is none.

    Source: Linux Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cpu.cfs_quota_us).
    """
    for folder in control_groups("cpu"):
        limits = _read(folder / "cpu.max").split()
        if len(limits) == 2 and limits[0] != "max":
            return int(limits[0]) / int(limits[1])
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            return int(quota) / int(period)
    return None


def memory_limit_bytes() -> int:
    """Memory this process may use: the container's limit where it is below the machine's memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    for folder in control_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit() and 0 < int(text) < total:
                return int(text)
    return total


def control_groups(controller: str) -> list[Path]:
    """This process's control group folder and its parents, innermost first, for cgroup v2 and v1."""
    folders: list[Path] = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup") if not controllers else Path("/sys/fs/cgroup") / controller
        if controllers and controller not in controllers.split(","):
            continue
        inner = root / path.lstrip("/")
        folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return folders


def cpu_model() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpu_features() -> tuple[str, ...]:
    """The members of :data:`KERNEL_FEATURES` that this CPU has; empty where the kernel does not tell."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.split(":", 1)[1].split())
            return tuple(name for name in KERNEL_FEATURES if name in flags)
    return ()


def cpu_facts() -> dict[str, str]:
    """What code that was generated for this CPU depends on."""
    return {"architecture": platform.machine(), "CPU": cpu_model(), "CPU features": " ".join(cpu_features())}


def has_bfloat16() -> bool:
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(cpu_features()))


def cache_bytes() -> tuple[int, ...]:
    """Sizes of the first core's data caches, innermost first; empty where the kernel does not tell.

    Source: Linux Documentation/ABI/testing/sysfs-devices-system-cpu (cache/index*).
    """
    sizes: dict[int, int] = {}
    for folder in _CACHES.glob("index*"):
        level, text = _read(folder / "level"), _read(folder / "size")
        if _read(folder / "type") != "Instruction" and level.isdigit() and text[:-1].isdigit():
            sizes[int(level)] = int(text[:-1]) << _SIZE_SHIFTS.get(text[-1], 0)
    return tuple(size for _, size in sorted(sizes.items()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
