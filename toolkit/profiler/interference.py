"""How much of the machine others used while we measured: the kernel's CPU time minus our own.

Source: proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal in clock ticks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

NOTICEABLE_CORES = 0.1
NOTICEABLE_STEAL = 0.05


class Usage(msgspec.Struct, frozen=True):
    """Seconds since the machine started: all cores' work, what the hypervisor kept, our own, and the wall clock."""

    busy_s: float
    stolen_s: float
    own_s: float
    wall_s: float


class Interference(msgspec.Struct, frozen=True):
    """What others took while we measured, in cores: ``other_cores`` 0.5 is one core half of the time."""

    other_cores: float
    stolen_cores: float

    @property
    def doubts(self) -> list[str]:
        found = []
        if self.other_cores > NOTICEABLE_CORES:
            found.append(f"other processes kept {self.other_cores:.2f} cores busy meanwhile")
        if self.stolen_cores > NOTICEABLE_STEAL:
            found.append(f"the hypervisor gave {self.stolen_cores:.2f} cores of this machine to others meanwhile")
        return found


def usage(stat: Path = Path("/proc/stat")) -> Usage | None:
    """Usage now; our own includes children that have ended. None where the kernel does not tell."""
    try:
        fields = stat.read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    ticks = [int(field) for field in fields[1:9]]
    if len(ticks) < 8:
        return None
    user, nice, system, _, _, irq, softirq, steal = (value / os.sysconf("SC_CLK_TCK") for value in ticks)
    own = os.times()
    return Usage(
        busy_s=user + nice + system + irq + softirq,
        stolen_s=steal,
        own_s=own.user + own.system + own.children_user + own.children_system,
        wall_s=time.monotonic(),
    )


def between(before: Usage | None, after: Usage | None) -> Interference | None:
    """What others took from ``before`` to ``after``, which must be taken when no child of ours is running."""
    if before is None or after is None or after.wall_s - before.wall_s < 0.5:
        return None
    wall = after.wall_s - before.wall_s
    other = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return Interference(max(0.0, round(other / wall, 3)), max(0.0, round((after.stolen_s - before.stolen_s) / wall, 3)))
