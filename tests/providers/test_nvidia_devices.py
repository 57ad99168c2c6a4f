"""NVML, CUDA events and what a session's device tells, with Python objects that have the functions of the libraries."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.models import LINEAR
from tests.providers.conftest import H200, FakeDriver, Install
from toolkit.errors import EngineError
from toolkit.providers import nvidia, nvml
from toolkit.providers.cuda_events import CudaStream
from toolkit.providers.device import DeviceTimes
from toolkit.providers.nvidia_devices import NvidiaDevice, split_by_events
from toolkit.providers.nvml import NvmlGpu, nvml_gpu
from toolkit.providers.onnxruntime_device import BoundEngine
from toolkit.providers.onnxruntime_engine import OnnxRuntimeEngine
from toolkit.targets import Target
from toolkit.tensors import Feeds

UNKNOWN = (1 << 64) - 1


class FakeNvml:
    """``libnvidia-ml`` with one GPU, whose UUID is that of the second card of :class:`FakeDriver`."""

    def __init__(self, processes: tuple[tuple[int, int], ...] = (), bits: int = 0, energy: bool = True) -> None:
        self.processes, self.bits, self.energy, self.asked = processes, bits, energy, b""
        self.millijoules = 1000

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        self.asked = name
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
        value._obj.value = self.millijoules
        return 0 if self.energy else 3  # NVML_ERROR_NOT_SUPPORTED

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, infos: Any) -> int:
        if infos is None:
            count._obj.value = len(self.processes)
            return 7 if self.processes else 0
        for info, (pid, memory) in zip(infos, self.processes, strict=False):
            info.pid, info.memory = pid, memory
        count._obj.value = len(self.processes)
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, bits: Any) -> int:
        bits._obj.value = self.bits
        return 0


def installed(monkeypatch: pytest.MonkeyPatch, install: Install, library: FakeNvml) -> NvmlGpu:
    install(FakeDriver((H200, H200)))
    monkeypatch.setattr(nvml, "load_library", lambda: library)
    found = nvml_gpu(1)
    assert found is not None
    return found


def test_a_gpu_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch, install_driver: Install) -> None:
    library = FakeNvml()
    installed(monkeypatch, install_driver, library)
    assert library.asked == b"GPU-01010101-0101-0101-0101-010101010101"
    assert nvml_gpu(2) is None


def test_without_driver_or_library_there_is_none(monkeypatch: pytest.MonkeyPatch, install_driver: Install) -> None:
    install_driver(None)
    assert nvml_gpu(0) is None
    install_driver(FakeDriver((H200,)))

    def absent() -> Any:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(nvml, "load_library", absent)
    assert nvml_gpu(0) is None


def test_energy_in_joules_where_the_card_counts_it(monkeypatch: pytest.MonkeyPatch, install_driver: Install) -> None:
    library = FakeNvml()
    gpu = installed(monkeypatch, install_driver, library)
    assert gpu.counts_energy and gpu.joules() == 1.0
    library.millijoules = 2500
    assert gpu.joules() == 2.5
    assert not installed(monkeypatch, install_driver, FakeNvml(energy=False)).counts_energy


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        (((os.getpid(), 500), (7, 900)), 500),
        (((7, 900),), 900),  # in a container: another number, but the only one
        (((7, 900), (8, 100)), None),
        (((os.getpid(), UNKNOWN),), None),
        ((), None),
    ],
)
def test_memory_of_this_process(
    monkeypatch: pytest.MonkeyPatch, install_driver: Install, processes: Any, expected: int | None
) -> None:
    assert installed(monkeypatch, install_driver, FakeNvml(processes)).memory_bytes() == expected


def test_brakes_in_words_and_idleness_is_none(monkeypatch: pytest.MonkeyPatch, install_driver: Install) -> None:
    assert installed(monkeypatch, install_driver, FakeNvml(bits=0x1 | 0x2)).brakes() == []
    both = installed(monkeypatch, install_driver, FakeNvml(bits=0x4 | 0x40)).brakes()
    assert both == ["power limit", "too hot (hardware)"]


class FakeCuda:
    """The driver's stream and event functions; time goes on by 2 ms with each event."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.now, self.times, self.destroyed = fails, 0.0, dict[int, float](), 0

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 700 if name == self.fails else self._answer(name, arguments)

    def _answer(self, name: str, arguments: Any) -> int:
        if name == "cuStreamCreate":
            arguments[0]._obj.value = 4711
        if name == "cuEventCreate":
            self.now += 2.0
            arguments[0]._obj.value = len(self.times) + 1
            self.times[len(self.times) + 1] = self.now
        if name == "cuEventElapsedTime":
            arguments[0]._obj.value = self.times[arguments[2].value] - self.times[arguments[1].value]
        self.destroyed += name == "cuEventDestroy_v2"
        return 0


def test_time_between_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(nvidia, "load_library", lambda: cuda)
    stream = CudaStream(0)
    assert stream.pointer == 4711
    assert stream.elapsed_ns(stream.mark(), stream.mark()) == 2_000_000
    assert cuda.destroyed == 2


def test_a_call_that_the_driver_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "load_library", lambda: FakeCuda("cuStreamCreate"))
    with pytest.raises(EngineError, match="the CUDA driver refused a call; got error 700 of cuStreamCreate"):
        CudaStream(0)


class HostStream:
    """Marks by the host's clock."""

    def mark(self) -> int:
        return time.perf_counter_ns()

    def elapsed_ns(self, first: int, second: int) -> int:
        return second - first


def test_a_bound_session_splits_computing_from_copies(tmp_path: Path) -> None:
    inner = OnnxRuntimeEngine(
        LINEAR.write(tmp_path), Target(name="cpu", provider="cpu", threads=1), [("CPUExecutionProvider", {})]
    )
    engine = BoundEngine(inner, "cpu", 0)
    feed = {"x": np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)}
    found = engine.timed(feed, HostStream())
    assert found.compute_ns > 0 and found.copy_ns > 0
    np.testing.assert_allclose(engine.run(feed)["y"], LINEAR.reference(feed)["y"], rtol=1e-5, atol=1e-5)
    assert (engine.parallel, engine.device) == (1, None)
    engine.close()


def test_a_device_opens_what_times_calls_once_and_its_memory_is_not_the_sessions(
    monkeypatch: pytest.MonkeyPatch, install_driver: Install
) -> None:
    library = FakeNvml(((os.getpid(), 500),))
    installed(monkeypatch, install_driver, library)
    made = []

    def open_timed() -> Any:
        made.append(1)
        library.processes = ((os.getpid(), 1500),)
        return lambda feeds: DeviceTimes(10, 20)

    device = NvidiaDevice(1, open_timed)
    assert (device.energy_source, device.joules()) == ("NVML", 1.0)
    assert device.memory_bytes() == 500
    feeds: Feeds = {}
    assert device.times(feeds, 2) == device.times(feeds, 2) == [DeviceTimes(10, 20)] * 2
    assert made == [1]
    assert device.memory_bytes() == 500
    assert device.brakes() == []


def test_a_device_without_nvml_tells_what_the_engine_knows(install_driver: Install) -> None:
    install_driver(None)
    device = NvidiaDevice(0, None, lambda: 77)
    assert (device.energy_source, device.joules(), device.memory_bytes(), device.brakes()) == ("", 0.0, 77, [])
    assert device.times({}, 3) == []


class FakeEvent:
    def __init__(self, milliseconds: float) -> None:
        self.milliseconds = milliseconds

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.milliseconds - self.milliseconds

    def synchronize(self) -> None:
        pass


def test_torch_events_part_copies_from_the_computation() -> None:
    assert split_by_events([FakeEvent(at) for at in (0.0, 1.0, 4.0, 4.5)]) == DeviceTimes(3_000_000, 1_500_000)
