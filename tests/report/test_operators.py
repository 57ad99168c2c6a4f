"""The terminal's table of operators: what stands in it, and that it fits."""

from __future__ import annotations

import msgspec
import pytest

from tests.report.conftest import MS
from toolkit.profiler.records import OperatorProfile, OperatorRecord, PeakRecord, ProfileReport
from toolkit.report.table import table


@pytest.fixture
def with_operators(report: ProfileReport) -> ProfileReport:
    """The first case's time: fifteen operators, one brought in by the engine, one part unexplained."""
    slowest = OperatorRecord(
        name="n", operator="a_very_long_kernel_name_of_some_engine",
        nodes=("/encoder/layer/0/attention/self/query/a_long_path/MatMul", "/bias"), operators=("MatMul", "Add"),
        time_ns=5 * MS, share=0.25, precision="float32", flops=700_000_000, bytes=9_000_000, of_peak=0.87,
        bound="compute",
    )  # fmt: skip
    mover = OperatorRecord(
        name="reorder_1", operator="Reorder", time_ns=2 * MS, share=0.1, precision="float32", bytes=None
    )
    copies = [
        OperatorRecord(
            name=f"c{i}", operator="Concat", nodes=(f"cat_{i}",), operators=("Concat",), time_ns=0.5 * MS, share=0.025,
            flops=0, bytes=5_000_000, of_peak=0.42, bound="memory",
        )
        for i in range(13)
    ]  # fmt: skip
    profile = OperatorProfile(
        latency_ns=20 * MS, instrumented_ns=21 * MS, unexplained_ns=1.25 * MS, operators=[slowest, mover, *copies],
        notes=["a note of the engine"],
    )  # fmt: skip
    first = msgspec.structs.replace(report.cases[0], operators=profile)
    peak = PeakRecord(
        target="cpu-fp32", precision="float32", flops_per_s=160e9, bytes_per_s=25e9, read_bytes_per_s=24e9,
        cached_bytes_per_s=110e9, cached_read_bytes_per_s=90e9, cache_bytes=33_554_432,
    )  # fmt: skip
    return msgspec.structs.replace(report, cases=[first, *report.cases[1:]], peaks=[peak])


def test_operators_stand_with_their_share_and_distance_to_the_peak(with_operators: ProfileReport) -> None:
    lines = table(with_operators).splitlines()
    slowest = next(line for line in lines if "MatMul +1" in line)
    assert all(text in slowest for text in ("5.00 ms", "25.0 %", "140 GFLOP/s", "87 % c"))
    copy = next(line for line in lines if "cat_0" in line)
    assert "10.0 GB/s" in copy and "42 % m" in copy
    assert any("(reorder_1)" in line and "Reorder" in line for line in lines)
    assert any("3 more" in line and "1.50 ms" in line for line in lines)
    assert any("unexplained" in line and "1.25 ms" in line and "6.2 %" in line for line in lines)
    assert any("a note of the engine" in line for line in lines)
    assert any("float32 160 GFLOP/s" in line for line in lines)


def test_it_fits_eighty_columns(with_operators: ProfileReport) -> None:
    assert max(len(line) for line in table(with_operators).splitlines()) <= 80


def test_without_operators_there_is_no_table(report: ProfileReport) -> None:
    assert "unexplained" not in table(report)
