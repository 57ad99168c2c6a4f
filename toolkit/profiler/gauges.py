"""What is read around each block beside the clock: energy, the CPU's clock rate, the device's memory and its brakes.

All of it is read in the worker, before the first and after the last call of a block, so that it disturbs none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

import msgspec

from toolkit.profiler.clock import now_ns
from toolkit.profiler.energy import Meter, NoMeter, idle_watts, rapl
from toolkit.providers.device import Device
from toolkit.providers.session import Session

_CPUS = Path("/sys/devices/system/cpu")


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """What was read around one block.

    Attributes:
        joules: spent during ``duration_ns``, in which ``runs`` calls were made; None where nothing counts them.
        cpu_khz: the fastest usable core's clock rate at the end; None where the kernel does not tell.
        device_memory_bytes: at most so far; None without a device.
        brakes: why the device ran below its clock, in its own words.
    """

    joules: float | None = None
    duration_ns: int = 0
    runs: int = 0
    cpu_khz: int | None = None
    device_memory_bytes: int | None = None
    brakes: list[str] = []


class Instruments(msgspec.Struct, frozen=True, kw_only=True):
    """Which energy counter there is: ``source``, or the ``reason`` why there is none, and what it counts at rest."""

    source: str = ""
    reason: str = ""
    idle_watts: float | None = None


@final
class _DeviceMeter:
    """A device's own counter."""

    def __init__(self, device: Device) -> None:
        self.source, self.joules = device.energy_source, device.joules


@final
class Gauges:
    """The instruments of one worker. The device's own counter is read where the session runs on one, else the CPU's."""

    def __init__(self, session: Session, root: Path = _CPUS) -> None:
        self._device: Device | None = session.device
        self._meter = self._find_meter()
        self._frequencies = frequency_files(root)
        self._began_ns, self._before = 0, 0.0
        self.instruments = self._describe()

    def _find_meter(self) -> Meter | NoMeter:
        if self._device is None:
            return rapl()
        return _DeviceMeter(self._device) if self._device.energy_source else NoMeter("this device counts no energy")

    def _describe(self) -> Instruments:
        if isinstance(self._meter, NoMeter):
            return Instruments(reason=self._meter.reason)
        return Instruments(source=self._meter.source, idle_watts=idle_watts(self._meter))

    def begin(self) -> None:
        self._before = 0.0 if isinstance(self._meter, NoMeter) else self._meter.joules()
        self._began_ns = now_ns()

    def end(self, runs: int) -> Readings:
        duration_ns = now_ns() - self._began_ns
        joules = None if isinstance(self._meter, NoMeter) else self._meter.joules() - self._before
        return Readings(
            joules=joules,
            duration_ns=duration_ns,
            runs=runs,
            cpu_khz=fastest_khz(self._frequencies),
            device_memory_bytes=None if self._device is None else self._device.memory_bytes(),
            brakes=[] if self._device is None else self._device.brakes(),
        )


def frequency_files(root: Path = _CPUS) -> list[Path]:
    """Where the clock rates of the usable cores are read; empty where the kernel shows none."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    files = (root / f"cpu{core}" / "cpufreq" / "scaling_cur_freq" for core in sorted(cores))
    return [path for path in files if path.is_file()]


def fastest_khz(files: list[Path]) -> int | None:
    """The highest of the clock rates; cores that are idle show a low one whatever the others do."""
    found = [int(text) for path in files if (text := path.read_text(encoding="ascii").strip()).isdigit()]
    return max(found, default=None)
