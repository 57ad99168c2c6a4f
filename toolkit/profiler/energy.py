"""Joules that hardware counts, read before and after each block: RAPL for CPUs; a GPU's own counter is its provider's.

Source: Linux Documentation/power/powercap/powercap.rst. A package domain (``intel-rapl:0``) holds cores and caches;
memory is a domain of its own inside it (``intel-rapl:0:0`` named ``dram``) that the package does not count; ``psys`` is
the whole board and would count everything twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, final

import msgspec

POWERCAP = Path("/sys/class/powercap")
IDLE_S = 0.1


class Meter(Protocol):
    """A counter of joules that only grows."""

    source: str

    def joules(self) -> float: ...


class NoMeter(msgspec.Struct, frozen=True):
    """Why energy cannot be measured here."""

    reason: str


class _Zone:
    """One RAPL domain, whose counter starts again at its range."""

    def __init__(self, folder: Path) -> None:
        self._counter = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
        self._last_uj = self._read()
        self.total_uj = 0

    def _read(self) -> int:
        return int(self._counter.read_text(encoding="ascii"))

    def advance(self) -> int:
        """Microjoules since this object was made; to be called more often than the counter starts again (minutes)."""
        now_uj = self._read()
        self.total_uj += (now_uj - self._last_uj) % (self._range_uj + 1)
        self._last_uj = now_uj
        return self.total_uj


@final
class Rapl:
    """All CPU packages and their memory together, whoever uses them."""

    source = "RAPL"

    def __init__(self, zones: list[_Zone]) -> None:
        self._zones = zones

    def joules(self) -> float:
        return sum(zone.advance() for zone in self._zones) / 1e6


def rapl(root: Path = POWERCAP) -> Rapl | NoMeter:
    """The CPU's energy counters, or why there are none."""
    folders = sorted(path for path in root.glob("*-rapl*:*") if _counts(path)) if root.is_dir() else []
    if not folders:
        return NoMeter(f"this CPU shows no energy counter ({root} has no RAPL domain)")
    try:
        return Rapl([_Zone(folder) for folder in folders])
    except PermissionError:
        return NoMeter(f"the CPU's energy counter is for root alone (chmod a+r {folders[0] / 'energy_uj'})")
    except (OSError, ValueError) as exc:
        return NoMeter(f"the CPU's energy counter cannot be read: {exc}")


def _counts(folder: Path) -> bool:
    """Whether ``folder`` is a package or its memory: everything else is a part of one of these, or both together."""
    try:
        name = (folder / "name").read_text(encoding="ascii").strip()
    except OSError:
        return False
    return name.startswith("package") or name == "dram"


def idle_watts(
    meter: Meter, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
) -> float:
    """What ``meter`` counts per second while this process sleeps, with whatever else the machine does."""
    before, began = meter.joules(), clock()
    sleep(IDLE_S)
    return (meter.joules() - before) / max(1e-9, clock() - began)
