"""Whether the machine was held back while we measured: by its container's quota, or because it grew too hot.

Sources: Linux Documentation/admin-guide/cgroup-v2.rst (cpu.stat: nr_throttled, throttled_usec) and
scheduler/sched-bwc.rst (the same of v1, throttled_time in nanoseconds); core_throttle_count and package_throttle_count
below ``thermal_throttle`` of each CPU, arch/x86/kernel/cpu/mce/therm_throt.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

import toolkit.machine as machine
from toolkit.profiler.nvidia_smi import nvidia_smi

_CPUS = Path("/sys/devices/system/cpu")
# What nvidia-smi calls the reasons that mean "slower than asked"; an idle GPU's low clock is none of them.
_BRAKES = {
    "clocks_throttle_reasons.hw_thermal_slowdown": "too hot (hardware)",
    "clocks_throttle_reasons.sw_thermal_slowdown": "too hot (driver)",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "power brake",
    "clocks_throttle_reasons.sw_power_cap": "power limit",
}
NOTICEABLE_SHARE = 0.01


class Held(msgspec.Struct, frozen=True):
    """How often, and for how long in all, the machine has been held back since it started.

    None and empty where the kernel or the driver does not tell.
    """

    periods: int | None = None
    seconds: float | None = None
    hot: int | None = None
    gpus: tuple[str, ...] = ()


def held(cpus: Path = _CPUS, groups: Sequence[Path] | None = None) -> Held:
    """Read the counters; ``groups`` are the folders of the process's control groups, innermost first."""
    periods, seconds = _quota(machine.control_groups("cpu") if groups is None else groups)
    return Held(periods, seconds, _hot(cpus), gpu_brakes())


def _quota(groups: Sequence[Path]) -> tuple[int | None, float | None]:
    for folder in groups:
        found = _pairs(folder / "cpu.stat")
        if "throttled_usec" in found:
            return found.get("nr_throttled", 0), found["throttled_usec"] / 1e6
        if "throttled_time" in found:
            return found.get("nr_throttled", 0), found["throttled_time"] / 1e9
    return None, None


def _pairs(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    cells = (line.split() for line in lines)
    return {cell[0]: int(cell[1]) for cell in cells if len(cell) == 2 and cell[1].isdigit()}


def _hot(cpus: Path) -> int | None:
    """How often cores and packages slowed down for heat, all together."""
    found = []
    for path in cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"):
        try:
            found.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # a counter that this CPU does not keep
    return sum(found) if found else None


def gpu_brakes() -> tuple[str, ...]:
    """Why GPUs are slower than asked right now, as nvidia-smi tells; empty without it."""
    try:
        found = nvidia_smi(("index", *_BRAKES))
    except OSError:
        return ()  # environment.gpus() tells that nvidia-smi does not answer
    return tuple(text for cells in found for text in _gpu_braked(*cells))


def _gpu_braked(index: str, *states: str) -> list[str]:
    reasons = [words for words, state in zip(_BRAKES.values(), states, strict=False) if state == "Active"]
    return [f"GPU {index} ran below its clock: {', '.join(reasons)}"] if reasons else []


def doubts(before: Held, after: Held, wall_s: float) -> list[str]:
    """What held the machine back from ``before`` to ``after``, in plain words."""
    found = list(after.gpus)
    if before.seconds is not None and after.seconds is not None:
        stopped_s, times = after.seconds - before.seconds, (after.periods or 0) - (before.periods or 0)
        if stopped_s > NOTICEABLE_SHARE * wall_s:
            found.append(
                f"the container's CPU quota stopped this run {times} times, {stopped_s:.1f} s in all: fewer threads"
                " or a larger quota"
            )
    if before.hot is not None and after.hot is not None and after.hot > before.hot:
        found.append(f"the CPU slowed down for heat {after.hot - before.hot} times meanwhile")
    return found
