"""What an NVIDIA GPU tells of a session that runs on it: energy and memory by NVML, times by events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, final

from toolkit.providers.device import DeviceTimes
from toolkit.providers.nvml import NvmlGpu, nvml_gpu
from toolkit.tensors import Feeds

Timed = Callable[[Feeds], DeviceTimes]
"""One call, split into computation and copies."""


@final
class NvidiaDevice:
    """A GPU under one session. Nothing is loaded before it is asked.

    Args:
        index: of the GPU, as CUDA counts them in this process.
        open_timed: opens what makes timed calls, which may take memory of its own; None where calls cannot be split.
        allocated_bytes: what the engine itself says it took at most; None to ask the driver.
    """

    def __init__(
        self, index: int, open_timed: Callable[[], Timed] | None, allocated_bytes: Callable[[], int] | None = None
    ) -> None:
        self._index, self._open_timed, self._allocated_bytes = index, open_timed, allocated_bytes
        self._timed: Timed | None = None
        self._memory_bytes: int | None = None

    @cached_property
    def _gpu(self) -> NvmlGpu | None:
        return nvml_gpu(self._index)

    @property
    def energy_source(self) -> str:
        return "NVML" if self._gpu is not None and self._gpu.counts_energy else ""

    def joules(self) -> float:
        return 0.0 if self._gpu is None else self._gpu.joules()

    def memory_bytes(self) -> int | None:
        """The most that was seen before the first timed calls, whose memory is not the session's."""
        if self._allocated_bytes is not None:
            return self._allocated_bytes()
        if self._timed is None and self._gpu is not None:
            found = self._gpu.memory_bytes()
            self._memory_bytes = max((item for item in (self._memory_bytes, found) if item is not None), default=None)
        return self._memory_bytes

    def brakes(self) -> list[str]:
        return [] if self._gpu is None else self._gpu.brakes()

    def times(self, feeds: Feeds, runs: int) -> list[DeviceTimes]:
        if self._open_timed is None:
            return []
        if self._timed is None:
            self._timed = self._open_timed()
            self._timed(feeds)  # finds memory and kernels, as the first call of a session does
        return [self._timed(feeds) for _ in range(runs)]


def split_by_events(events: Sequence[Any]) -> DeviceTimes:
    """Of four torch events: before the copies in, before and after the computation, after the copies out."""
    start, begin, end, stop = events
    stop.synchronize()
    copies_ms = start.elapsed_time(begin) + end.elapsed_time(stop)
    return DeviceTimes(round(begin.elapsed_time(end) * 1e6), round(copies_ms * 1e6))
