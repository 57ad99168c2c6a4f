"""How much of the machine others used while we measured: the kernel's CPU time minus our own.

Source: proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal in clock ticks.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

NOTICEABLE_CORES = 0.1
NOTICEABLE_STEAL = 0.05
_OTHERS = "other processes kept {} cores busy meanwhile"
_STOLEN = "the hypervisor gave {} cores of this machine to others meanwhile"


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
            found.append(_OTHERS.format(f"{self.other_cores:.2f}"))
        if self.stolen_cores > NOTICEABLE_STEAL:
            found.append(_STOLEN.format(f"{self.stolen_cores:.2f}"))
        return found


def worst(warnings: Iterable[str]) -> list[str]:
    """``warnings``, of which each run that went on with another added its own: each kind once, with its largest share.

    Warnings of other kinds stay, each once.
    """
    found: dict[str, str] = {}
    for text in warnings:
        kind = next((form for form in _FORMS if form.fullmatch(text)), None)
        key = text if kind is None else kind.pattern
        if kind is None or key not in found or _share(kind, text) > _share(kind, found[key]):
            found[key] = text
    return list(found.values())


_FORMS = tuple(re.compile(form.format(r"([\d.]+)")) for form in (_OTHERS, _STOLEN))


def _share(form: re.Pattern[str], text: str) -> float:
    match = form.fullmatch(text)
    assert match is not None, "it is of this form"
    return float(match[1])


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
