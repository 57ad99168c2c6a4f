"""Sweeps drawn as text, and what cases cost beside time, within 80 columns."""

from __future__ import annotations

import msgspec
import pytest

from toolkit.profiler.records import EnergyRecord, PriceRecord, ProfileReport, SweepRecord
from toolkit.report.batches import batch_lines, tried
from toolkit.report.plot import HEIGHT, latencies, plot, sweep_lines
from toolkit.report.table import table

from .conftest import MS, case


def swept(report: ProfileReport, **changes: object) -> ProfileReport:
    cases = [
        msgspec.structs.replace(case("bert.onnx", "cpu", float(size)), id=f"bert.onnx@cpu[batch={size}]")
        for size in (1, 2, 4, 8)
    ]
    sweep = SweepRecord(
        model="bert.onnx", target="cpu", variable="batch",
        points=[(float(size), item.id) for size, item in zip((1, 2, 4, 8), cases, strict=True)],
        exponent=1.02, exponent_ci=(0.97, 1.06), notes=["fitted over 4 points, 1 to 8"],
    )  # fmt: skip
    return msgspec.structs.replace(report, cases=cases, sweeps=[msgspec.structs.replace(sweep, **changes)])


def test_points_lie_where_their_logarithms_do() -> None:
    lines = plot([(1, 1000.0), (10, 10_000.0), (100, 100_000.0)])
    marks = [(row, line.index("●")) for row, line in enumerate(lines) if "●" in line]
    assert [row for row, _ in marks] == [0, (HEIGHT - 1) // 2, HEIGHT - 1]
    right, middle, left = (column for _, column in marks)
    assert middle - left == pytest.approx(right - middle, abs=1)
    assert lines[0].strip().startswith("100 µs ┤") and lines[-1].split() == ["1", "10", "100"]


def test_a_plot_of_equal_values_and_of_close_ones_does_not_fail() -> None:
    assert "●" in "".join(plot([(1, 5.0)]))
    assert plot([(1, 5.0), (2, 5.0)])
    crowded = plot([(float(size), 10.0 * size) for size in range(100, 140)])
    assert max(len(line) for line in crowded) <= 80
    assert len(crowded[-1].split()) < 40  # labels that would touch are left out


def test_a_sweep_is_drawn_with_its_exponent_within_80_columns(report: ProfileReport) -> None:
    lines = list(sweep_lines(swept(report)))
    assert lines[0] == "bert.onnx on cpu: latency grows as batch^1.02 [0.97, 1.06]"
    assert sum(line.count("●") for line in lines) == 4
    assert "  fitted over 4 points, 1 to 8" in lines
    text = table(swept(report))
    assert lines[0] in text and max(len(line) for line in text.splitlines()) <= 80


def test_a_falling_cost_and_a_sweep_without_exponent(report: ProfileReport) -> None:
    falling = swept(report, variable="threads", exponent=-0.96, exponent_ci=(-1.0, -0.9))
    assert next(sweep_lines(falling)).endswith("latency grows as threads^-0.96 [-1.00, -0.90]")
    flat = swept(report, exponent=None, exponent_ci=None, notes=["no exponent"])
    assert next(sweep_lines(flat)).endswith("latency over batch")


def test_points_that_were_not_measured_are_left_out_and_offline_ones_are_per_sample(report: ProfileReport) -> None:
    some = swept(report, points=[(1.0, "bert.onnx@cpu[batch=1]"), (3.0, "nobody")])
    assert latencies(some, some.sweeps[0]) == [(1.0, float(MS))]
    offline = [msgspec.structs.replace(item, scenario="offline", throughput_per_s=500.0) for item in some.cases]
    assert latencies(msgspec.structs.replace(some, cases=offline), some.sweeps[0]) == [(1.0, 2e6)]


def test_the_batches_that_were_tried_and_what_cases_cost(report: ProfileReport) -> None:
    changes = {
        "scenario": "offline", "batch": 16, "streams": 2, "throughput_per_s": 12_345.0,
        "batches_tried": [(1, 800.0), (16, 12_345.0)], "energy": EnergyRecord(joules=1.23e-5, watts=3, source="RAPL"),
        "price": PriceRecord(per_million=0.00042, currency="EUR"),
    }  # fmt: skip
    loaded = msgspec.structs.replace(report, cases=[case("m.onnx", "cpu", 1.0, **changes)], comparisons=[])
    text = " ".join(table(loaded).split())
    assert "m.onnx@cpu: batch 16, 2 streams; tried: 1: 800/s, 16: 12.3k/s" in text
    assert "m.onnx float32 offline, seq 64" in text
    assert "12.3 µJ" in text and "0.00042 EUR" in text
    assert max(len(line) for line in table(loaded).splitlines()) <= 80
    assert list(batch_lines(report)) == []


def test_of_very_many_batches_the_first_and_the_last_are_shown() -> None:
    many = case("m", "t", 1.0, batches_tried=[(1 << power, 2.5e6) for power in range(20)])
    assert tried(many).startswith("1: 2.50M/s, 2: 2.50M/s, …, 2048: 2.50M/s")
    assert tried(many).endswith("524288: 2.50M/s")
