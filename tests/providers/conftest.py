"""A driver of NVIDIA's that is not there: a Python object with the functions of its library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit.providers import cuda_available, nvidia, tensorrt_available


class FakeDriver:
    """``libcuda`` with ``gpus`` cards.

    Args:
        gpus: (name, compute capability, bytes) of each card.
        cuda: the newest CUDA it supports, such as 13000 for 13.0.
        fails: what cuInit answers.
    """

    def __init__(
        self, gpus: tuple[tuple[str, tuple[int, int], int], ...] = (), cuda: int = 13000, fails: int = 0
    ) -> None:
        self.gpus, self.cuda, self.fails = gpus, cuda, fails

    def cuInit(self, flags: int) -> int:
        return self.fails

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"system has unsupported display driver / cuda driver combination"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.cuda
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:
        name.value = self.gpus[handle.value][0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = self.gpus[handle.value][2]
        return 0

    def cuDeviceGetUuid(self, uuid: Any, handle: Any) -> int:
        uuid.raw = bytes([handle.value] * 16)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = self.gpus[handle.value][1][attribute - 75]
        return 0


H200 = ("NVIDIA H200", (9, 0), 150_000_000_000)
T4 = ("Tesla T4", (7, 5), 16_000_000_000)
Install = Callable[[FakeDriver | None], None]


@pytest.fixture
def install_driver(monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install_driver(FakeDriver(...))``, or None for a machine without one."""

    def _install(driver: FakeDriver | None) -> None:
        def load() -> FakeDriver:
            if driver is None:
                raise OSError("libcuda.so.1: cannot open shared object file")
            return driver

        monkeypatch.setattr(nvidia, "load_library", load)

    return _install


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own for each test, and no memory of what was tried before."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    probes = (cuda_available.probe, tensorrt_available.probe)  # the originals, whatever a test puts in their place
    for probe in probes:
        probe.cache_clear()
    yield
    for probe in probes:
        probe.cache_clear()
