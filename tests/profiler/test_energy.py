"""RAPL's counters, from a tree of files like the kernel's; and what a worker reads around a block."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import toolkit.profiler.gauges as gauges_module
from toolkit.profiler.energy import NoMeter, Rapl, idle_watts, rapl
from toolkit.profiler.gauges import Gauges, Instruments, fastest_khz, frequency_files
from toolkit.providers.device import DeviceTimes
from toolkit.tensors import Feeds

RANGE_UJ = 1_000_000_000


def zone(root: Path, folder: str, name: str, uj: int) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{uj}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return path / "energy_uj"


def test_packages_and_their_memory_add_up_and_parts_of_them_do_not(tmp_path: Path) -> None:
    counters = [
        zone(tmp_path, "intel-rapl:0", "package-0", 100),
        zone(tmp_path, "intel-rapl:1", "package-1", 200),
        zone(tmp_path, "intel-rapl:0:1", "dram", 300),
        zone(tmp_path, "intel-rapl:0:0", "core", 400),
        zone(tmp_path, "intel-rapl:2", "psys", 500),
    ]
    (tmp_path / "intel-rapl").mkdir()  # the control type itself, which has no counter
    meter = rapl(tmp_path)
    assert isinstance(meter, Rapl) and meter.source == "RAPL"
    assert meter.joules() == 0
    for counter in counters:
        counter.write_text(str(int(counter.read_text()) + 1_000_000))
    assert meter.joules() == pytest.approx(3.0)


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    meter = rapl(tmp_path)
    assert isinstance(meter, Rapl)
    counter.write_text("1999999")
    assert meter.joules() == pytest.approx(3.0)
    counter.write_text("2999999")
    assert meter.joules() == pytest.approx(4.0)


def test_without_a_counter_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = rapl(tmp_path / "nothing")
    assert isinstance(absent, NoMeter) and "has no RAPL domain" in absent.reason
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    counter.write_text("<not supported>")
    broken = rapl(tmp_path)
    assert isinstance(broken, NoMeter) and "cannot be read" in broken.reason
    read = Path.read_text

    def refused(path: Path, *args: Any, **options: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", refused)  # chmod stops nobody who is root, as tests in a container are
    closed = rapl(tmp_path)
    assert isinstance(closed, NoMeter) and "for root alone (chmod a+r" in closed.reason


class Counter:
    """A meter that counts 40 watts on a clock of its own."""

    source = "NVML"

    def __init__(self) -> None:
        self.now = 0.0

    def joules(self) -> float:
        return 40 * self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_idle_watts() -> None:
    counter = Counter()
    assert idle_watts(counter, counter.sleep, lambda: counter.now) == pytest.approx(40)


class FakeDevice:
    def __init__(self, energy_source: str) -> None:
        self.energy_source, self.spent = energy_source, 0.0

    def joules(self) -> float:
        self.spent += 2.0
        return self.spent

    def memory_bytes(self) -> int | None:
        return 123

    def brakes(self) -> list[str]:
        return ["power limit"]

    def times(self, feeds: Feeds, runs: int) -> list[DeviceTimes]:
        return []


class FakeSession:
    def __init__(self, device: FakeDevice | None) -> None:
        self.device = device


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges_module, "idle_watts", lambda meter: 11.0)


def test_on_a_device_its_own_counter_is_read(tmp_path: Path) -> None:
    gauges = Gauges(FakeSession(FakeDevice("NVML")), tmp_path)  # type: ignore[arg-type]
    assert gauges.instruments == Instruments(source="NVML", idle_watts=11.0)
    gauges.begin()
    found = gauges.end(7)
    assert (found.joules, found.runs, found.device_memory_bytes, found.brakes) == (2.0, 7, 123, ["power limit"])
    assert found.duration_ns > 0


def test_a_device_that_counts_nothing_is_not_replaced_by_the_cpu(tmp_path: Path) -> None:
    gauges = Gauges(FakeSession(FakeDevice("")), tmp_path)  # type: ignore[arg-type]
    assert gauges.instruments == Instruments(reason="this device counts no energy")
    gauges.begin()
    assert gauges.end(1).joules is None


def test_on_the_cpu_rapl_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    monkeypatch.setattr(gauges_module, "rapl", lambda: rapl(tmp_path))
    gauges = Gauges(FakeSession(None), tmp_path)  # type: ignore[arg-type]
    gauges.begin()
    counter.write_text("5000000")
    found = gauges.end(2)
    assert found.joules == pytest.approx(5.0) and found.device_memory_bytes is None


def test_the_fastest_usable_core_tells_the_clock_rate(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    for core in (*cores, 4000):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{1_000_000 + core}\n")
    files = frequency_files(tmp_path)
    assert len(files) == len(cores)  # not those that this process may not use
    assert fastest_khz(files) == 1_000_000 + cores[-1]
    assert frequency_files(tmp_path / "none") == [] and fastest_khz([]) is None
