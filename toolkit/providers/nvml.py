"""NVIDIA's management library: energy, memory per process, and why a GPU runs below its clock.

Source: docs.nvidia.com/deploy/nvml-api. It comes with the driver; no Python package is needed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from itertools import pairwise
from typing import Any, final

from toolkit.providers.nvidia import Driver, driver

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_TOO_SMALL = 7  # NVML_ERROR_INSUFFICIENT_SIZE
_UNKNOWN = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE
# nvmlClocksEventReasons: those that mean "slower than asked". An idle GPU's low clock and a clock that somebody set are
# none of them. Hardware slowdown (8) is the sum of its two causes, and says so alone on older cards.
_BRAKES = {
    0x04: "power limit", 0x08: "hardware slowdown", 0x20: "too hot (driver)", 0x40: "too hot (hardware)",
    0x80: "power brake",
}  # fmt: skip


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t since version 2."""

    _fields_ = (
        ("pid", ctypes.c_uint), ("memory", ctypes.c_ulonglong), ("instance", ctypes.c_uint), ("part", ctypes.c_uint),
    )  # fmt: skip


def load_library() -> Any:
    """The library.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL(_LIBRARY)


def nvml_gpu(index: int) -> NvmlGpu | None:
    """The GPU that CUDA counts as ``index`` in this process; None where NVML is not there or does not know it.

    CUDA_VISIBLE_DEVICES renumbers GPUs for CUDA but not for NVML, hence by UUID.
    """
    found = driver()
    if not isinstance(found, Driver) or index >= len(found.gpus):
        return None
    try:
        library = load_library()
    except OSError:
        return None
    handle = ctypes.c_void_p()
    name = _uuid_text(found.gpus[index].uuid).encode()
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
        return None
    return NvmlGpu(library, handle)


def _uuid_text(digits: str) -> str:
    """``GPU-8-4-4-4-12`` of 32 hexadecimal digits."""
    cuts = (0, 8, 12, 16, 20, 32)
    return "GPU-" + "-".join(digits[start:end] for start, end in pairwise(cuts))


@final
class NvmlGpu:
    """One GPU by its handle."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle
        # Since the Volta generation.
        self.counts_energy = self._millijoules() is not None

    def _millijoules(self) -> int | None:
        value = ctypes.c_ulonglong()
        failed = self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(value))
        return None if failed else value.value

    def joules(self) -> float:
        """Energy used since the driver was loaded, by whoever used the GPU."""
        return (self._millijoules() or 0) / 1e3

    def memory_bytes(self) -> int | None:
        """Memory that this process uses now; None where the driver does not tell it apart from others'.

        Inside a container processes have other numbers than the driver knows: a process that is alone is the one.
        """
        found = self._processes()
        own = [item for item in found if item.pid == os.getpid()] or (found if len(found) == 1 else [])
        return own[0].memory if own and own[0].memory != _UNKNOWN else None

    def _processes(self) -> list[Any]:
        ask, count = self._library.nvmlDeviceGetComputeRunningProcesses_v3, ctypes.c_uint(0)
        if ask(self._handle, ctypes.byref(count), None) not in (0, _TOO_SMALL) or not count.value:
            return []
        count.value += 8  # some may start meanwhile
        infos = (_Process * count.value)()
        failed = ask(self._handle, ctypes.byref(count), infos)
        return [] if failed else list(infos[: count.value])

    def brakes(self) -> list[str]:
        """Why it runs below its clock right now."""
        bits = ctypes.c_ulonglong()
        if self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle, ctypes.byref(bits)):
            return []
        return [words for bit, words in _BRAKES.items() if bits.value & bit]
