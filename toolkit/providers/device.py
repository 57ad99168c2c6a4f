"""What a device other than the CPU tells of itself while a session runs on it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from toolkit.tensors import Feeds


class DeviceTimes(msgspec.Struct, frozen=True):
    """One call as the device's own events tell: its computation, and the copies to the device and back."""

    compute_ns: int
    copy_ns: int


class Device(Protocol):
    """The device of one session.

    Attributes:
        energy_source: who counts its energy, such as "NVML"; "" where nobody does.
    """

    @property
    def energy_source(self) -> str: ...

    def joules(self) -> float:
        """Energy the whole device has used, from any moment on; only where there is an ``energy_source``."""
        ...

    def memory_bytes(self) -> int | None:
        """Memory of the device that this process uses, at most so far as the engine tells; None where unknown."""
        ...

    def brakes(self) -> list[str]:
        """Why the device runs below its clock right now, in words; empty where it does not."""
        ...

    def times(self, feeds: Feeds, runs: int) -> list[DeviceTimes]:
        """``runs`` calls by the device's own events; empty where the engine cannot be timed so."""
        ...
