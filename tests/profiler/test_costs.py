"""machine.toml: what it may say, and what becomes of it; energy from counters, from it, or the reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.profiler.beyond import alone, block_time, energy, slowed, throughput, with_costs
from toolkit.profiler.cases import Case
from toolkit.profiler.costs import Machine, read_machine
from toolkit.profiler.gauges import Instruments, Readings
from toolkit.profiler.offline import Search
from toolkit.profiler.protocol import Opened
from toolkit.profiler.records import CaseRecord, EnergyRecord, PriceRecord
from toolkit.profiler.schedule import Course, Turn
from toolkit.targets import Target

MS = 1_000_000


def course(turns: list[Turn], instruments: Instruments = Instruments(), batch: int = 2, **case: object) -> Course:  # noqa: B008 - frozen
    plain = Case(model="m", path="m", target=Target(name="t", provider="null"), **case)  # type: ignore[arg-type]
    opened = Opened(
        import_ns=1, load_ns=1, first_inference_ns=1, precision="float32", batch=batch, dims={}, shapes=[[batch]],
        base_memory_bytes=1, instruments=instruments,
    )  # fmt: skip
    return Course(plain, turns=turns, openings=[opened])


def record(**changes: object) -> CaseRecord:
    known = {
        "id": "m@t", "model": "m", "target": "t", "provider": "null", "precision": "", "batch": 2, "dims": {},
        "status": "ok", "throughput_per_s": 500.0,
    }  # fmt: skip
    return CaseRecord(**(known | changes))  # type: ignore[arg-type]


def test_price_and_energy_of_a_machine() -> None:
    machine = Machine(price_per_hour=3.6, currency="EUR", watts=65, idle_watts=20)
    assert machine.price(1000.0) == PriceRecord(per_million=1.0, currency="EUR")
    assert machine.energy(1000.0) == EnergyRecord(joules=0.065, watts=65, idle_watts=20, source="machine.toml")
    assert Machine().price(1000.0) is None and Machine().energy(1000.0) is None
    assert machine.price(0.0) is None and machine.energy(0.0) is None  # calls that hold no sample


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text('price_per_hour = 0.34\ncurrency = "EUR"\nwatts = 65\n')
    assert read_machine(path) == Machine(price_per_hour=0.34, currency="EUR", watts=65.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("watt = 65", "unknown key; got watt; expected 'watts' (did you mean that?)"),
        ('watts = "65"', "a value does not fit; got Expected `float | null`, got `str` - at `$.watts`"),
        ("watts = -5", "watts is no amount; got -5.0; expected 0 or more"),
        ("watts = inf", "watts is no amount"),
        ("watts = 0", "no machine works on 0 watts"),
        ("price_per_hour = 1", 'a price needs a currency; expected currency = "EUR"'),
        ("watts = 5\nidle_watts = 6", "idle_watts are above watts; got 6 and 5"),
        ("watts =", "not a TOML file"),
    ],
)
def test_what_makes_no_sense_is_one_line_with_the_file(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_machine(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    with pytest.raises(UsageError, match="no such machine file"):
        read_machine(tmp_path / "absent.toml")


def test_counted_joules_are_per_sample_and_beat_the_users_watts() -> None:
    readings = Readings(joules=3.0, duration_ns=100 * MS, runs=10)
    found = energy(
        course([Turn(0, 0, [MS], readings=readings)] * 2, Instruments(source="RAPL", idle_watts=8.0)), 1.0,
        Machine(watts=1),
    )  # fmt: skip
    assert found == EnergyRecord(joules=0.15, watts=30.0, idle_watts=8.0, source="RAPL")


def test_without_a_counter_the_watts_are_taken_and_without_those_the_reason_is_told() -> None:
    blind = course([Turn(0, 0, [MS])], Instruments(reason="no counter"))
    assert energy(blind, 100.0, Machine(watts=50)).joules == 0.5
    assert energy(blind, 100.0, Machine()) == EnergyRecord(reason="not measurable here: no counter")
    still = course([Turn(0, 0, [MS], readings=Readings(joules=0.0, duration_ns=1, runs=1))], Instruments(source="RAPL"))
    assert energy(still, 1.0, Machine()).reason == "not measurable here: RAPL counted nothing"


def test_throughput_of_one_stream_is_that_of_its_calls_and_of_several_by_the_wall() -> None:
    turns = [Turn(0, 0, [4 * MS, 6 * MS], done=5.0, window_ns=10 * MS)]
    assert throughput(course(turns)) == pytest.approx(2 / 0.005)
    assert throughput(course(turns, scenario="multi-stream", streams=3)) == pytest.approx(2 * 5 / 0.010)
    without = [Turn(0, 0, [4 * MS, 6 * MS])]  # of an older record
    assert throughput(course(without, scenario="multi-stream", streams=3)) == pytest.approx(2 / 0.005)


def test_several_streams_are_compared_by_the_wall_and_one_by_its_median() -> None:
    turn = Turn(0, 0, [1000, 1000, 1000, 10 * MS], done=4.0, window_ns=10 * MS)
    loaded = course([turn], scenario="multi-stream", streams=3)
    assert block_time(course([turn]), turn) == 1000
    assert block_time(loaded, turn) == pytest.approx(10 * MS / 4)
    assert alone(loaded, throughput(loaded), 1000) == [
        "most calls met no other one, 2500 times below the mean: read the throughput, not p50"
    ]
    assert alone(loaded, throughput(loaded), 3 * MS) == alone(course([turn]), 800.0, 1000) == []


def test_all_that_is_known_comes_into_the_record() -> None:
    turns = [
        Turn(0, 0, [MS], readings=Readings(device_memory_bytes=5), device_ns=[3, 1, 2], copy_ns=[9]),
        Turn(0, 1, [MS], readings=Readings(device_memory_bytes=7, brakes=["power limit"]), device_ns=[2]),
    ]
    search = Search(2, [(1, 10.0), (2, 11.0)], ["memory is short"])
    found = with_costs(record(), course(turns), search, Machine(price_per_hour=1.8, currency="USD"))
    assert (found.device_memory_bytes, found.device_latency_ns, found.copy_ns) == (7, 2, 9)
    assert found.price == PriceRecord(per_million=1.0, currency="USD")
    assert found.batches_tried == [(1, 10.0), (2, 11.0)]
    assert found.warnings == ["the device ran below its clock in 50% of the blocks: power limit", "memory is short"]
    failed = record(status="failed")
    assert with_costs(failed, course(turns), search, Machine(watts=1)) == failed


def test_a_clock_that_falls_is_noticed_and_one_that_wavers_is_not() -> None:
    def readings(rates: list[int]) -> list[Readings]:
        return [Readings(cpu_khz=rate) for rate in rates]

    falling = list(slowed(readings([3_000_000] * 6 + [2_800_000] * 6 + [2_400_000] * 6)))
    assert falling == ["the CPU's clock fell by 20% from the first to the last third of the run"]
    assert list(slowed(readings([3_000_000, 2_950_000] * 9))) == []
    assert list(slowed(readings([3_000_000, 2_000_000]))) == []  # too few to tell
    assert list(slowed([Readings()] * 30)) == []
