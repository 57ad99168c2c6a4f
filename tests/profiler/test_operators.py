"""Operators of a case: scaled to its latency, compared with the roofline, and from end to end on real engines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import toolkit
from tests.graph.building import proto
from tests.report.conftest import case as record_of
from toolkit.graph.node_cost import RegionCost
from toolkit.profiler import operators, peaks
from toolkit.profiler.operators import operator_profile, without_overhead
from toolkit.profiler.process import ProcessWorker
from toolkit.profiler.records import CaseRecord, PeakRecord
from toolkit.profiler.roofline import peak_for, roof, traffic_ns
from toolkit.profiler.timing import Timed, TimedNode
from toolkit.providers.instruments import NodeTime
from toolkit.targets import Target

MS = 1_000_000
PEAK = PeakRecord(
    target="cpu", precision="float32", flops_per_s=100e9, bytes_per_s=10e9, read_bytes_per_s=8e9,
    cached_bytes_per_s=50e9, cached_read_bytes_per_s=40e9, cache_bytes=1_000_000,
)  # fmt: skip


def node(name: str, time_ms: float, flops: int | None = 0, moved: int = 0, **changes: object) -> TimedNode:
    time = NodeTime(name=name, operator="Conv", time_ns=time_ms * MS, best_ns=time_ms * MS, precision="float32")
    found = TimedNode(
        node=time, own_ns=time_ms * MS, nodes=(name,), operators=("Conv",), cost=RegionCost(flops, moved, 0)
    )
    return msgspec.structs.replace(found, **changes)


def measured(p50_ms: float) -> CaseRecord:
    return record_of("m.onnx", "cpu", p50_ms)


def test_times_are_scaled_to_the_median_and_the_rest_is_shown() -> None:
    timed = Timed(plain_ns=10 * MS, instrumented_ns=10 * MS, nodes=[node("a", 3), node("b", 6)], notes=("said",))
    found = operator_profile(measured(20), timed, [])
    assert [(item.name, item.time_ns, item.share) for item in found.operators] == [
        ("b", 12 * MS, pytest.approx(0.6)), ("a", 6 * MS, pytest.approx(0.3)),
    ]  # fmt: skip
    assert found.unexplained_ns == pytest.approx(2 * MS)
    assert found.instrumented_ns == pytest.approx(20 * MS)
    assert sum(item.time_ns for item in found.operators) + found.unexplained_ns == pytest.approx(found.latency_ns)
    assert found.notes == ["said"]


def test_what_instruments_cost_per_node_is_taken_off() -> None:
    times, notes = without_overhead([10_000.0, 6_000.0, 3_000.0], 20_000.0, 26_000.0)
    assert (times, notes) == ([8_000.0, 4_000.0, 1_000.0], [])
    # No more than the shortest node took, nor than such a thing can cost.
    assert without_overhead([10_000.0, 500.0], 20_000.0, 30_000.0)[0] == [9_500.0, 0.0]
    assert without_overhead([90_000.0, 50_000.0], 150_000.0, 200_000.0)[0] == [85_000.0, 45_000.0]


def test_nodes_that_took_longer_than_the_whole_run_shrink_alike_and_it_is_said() -> None:
    times, notes = without_overhead([9_000.0, 3_000.0], 10_000.0, 10_000.0)
    assert times == pytest.approx([7_500.0, 2_500.0])
    assert notes == ["nodes took 20% longer than a whole run without instruments, and were scaled down"]


def test_the_roof_is_the_longer_of_arithmetic_and_traffic() -> None:
    assert roof(RegionCost(200_000_000, 1000, 0), PEAK) == (pytest.approx(2 * MS), "compute")
    least, bound = roof(RegionCost(1000, 300_000, 200_000), PEAK) or (0.0, "")
    assert (least, bound) == (pytest.approx(10_000), "memory")
    assert roof(RegionCost(None, 1000, 0), PEAK) is None
    assert roof(RegionCost(0, 0, 0), PEAK) is None


def test_what_does_not_fit_into_the_cache_comes_from_memory() -> None:
    assert traffic_ns(1_000_000, PEAK) == pytest.approx(20_000)
    assert traffic_ns(3_000_000, PEAK) == pytest.approx(20_000 + 200_000)
    without_cache = msgspec.structs.replace(PEAK, cache_bytes=0)
    assert traffic_ns(1_000_000, without_cache) == pytest.approx(100_000)
    assert traffic_ns(1, msgspec.structs.replace(PEAK, bytes_per_s=None, read_bytes_per_s=None)) is None


def test_a_precision_without_a_peak_still_has_the_bandwidth() -> None:
    found = peak_for("int64", "cpu", [PEAK])
    assert found is not None and found.flops_per_s is None
    assert roof(RegionCost(100, 10, 0), found) is None
    assert roof(RegionCost(0, 50_000, 0), found) == (pytest.approx(1000), "memory")
    assert peak_for("float32", "other", [PEAK]) is None


def test_how_near_to_the_peak_is_said_where_the_clock_allows_it() -> None:
    nodes = [
        node("a", 4, flops=200_000_000),
        node("tiny", 0.005, flops=1000),
        node("layout", 1, nodes=(), operators=()),
    ]
    timed = Timed(plain_ns=10 * MS, instrumented_ns=10 * MS, nodes=nodes, notes=())
    slowest, layout, tiny = operator_profile(measured(10), timed, [PEAK]).operators
    assert (slowest.of_peak, slowest.bound) == (pytest.approx(0.5), "compute")
    assert (layout.nodes, layout.flops, layout.bytes, layout.of_peak) == ((), None, None, None)
    assert (tiny.of_peak, tiny.bound, tiny.flops) == (None, "", 1000)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks of small things: the way is the same, the numbers are not believed."""
    monkeypatch.setattr(operators, "_DURATION_NS", 60 * MS)
    monkeypatch.setattr(peaks, "_DURATION_NS", 60 * MS)
    monkeypatch.setattr(peaks, "_ROWS", 128)
    monkeypatch.setattr(peaks, "_WIDTHS", (128, 256, 128))
    monkeypatch.setattr(peaks, "_MOST_BYTES", 8 << 20)


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    weights = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    text = """agraph (float[batch, 256] x) => (float[batch, 256] y) {
        [product] h = MatMul (x, w)
        [act] y = Relu (h)
    }"""
    path = tmp_path / "mlp.onnx"
    onnx.save(proto(text, weights={"w": weights}), path)
    return path


@pytest.mark.usefixtures("small")
def test_a_profile_tells_where_the_time_goes_on_each_engine(mlp: Path) -> None:
    report = toolkit.profile(mlp, ["cpu", "openvino-f32"], batches=[64], budget_s=0.5, processes=1, operators=True)
    assert [case.status for case in report.cases] == ["ok", "ok"]
    for case in report.cases:
        profile = case.operators
        assert profile is not None and case.latency_ns is not None
        assert profile.latency_ns == case.latency_ns.p50
        product = next(item for item in profile.operators if "product" in item.nodes)
        assert product.flops is not None and product.flops >= 2 * 64 * 256 * 256
        assert product.share > 0.2
        assert sum(item.time_ns for item in profile.operators) + profile.unexplained_ns == pytest.approx(
            profile.latency_ns, rel=1e-3
        )
    found = {(peak.target, peak.precision): peak for peak in report.peaks}
    assert set(found) == {("cpu", "float32"), ("openvino-f32", "float32")}
    for peak in found.values():
        assert peak.flops_per_s and peak.bytes_per_s and peak.cached_bytes_per_s
    assert msgspec.json.decode(report.to_json(), type=type(report)).peaks == report.peaks


@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.usefixtures("small")
def test_a_product_peaks_in_the_precision_that_was_executed(precision: str) -> None:
    for engine in ("cpu", "openvino"):
        (found,) = peaks.peaks(Target(name=engine, provider=engine), {precision, "int64"}, ProcessWorker)
        assert (found.target, found.precision) == (engine, precision)
        assert found.flops_per_s is not None and found.flops_per_s > 1e8


def test_an_engine_without_instruments_keeps_its_numbers_and_says_why(tmp_path: Path) -> None:
    from toolkit.providers.null import NullModel
    from toolkit.tensors import TensorSpec

    path = tmp_path / "model.json"
    spec = (TensorSpec("x", "float32", ("batch", 4)),)
    path.write_bytes(msgspec.json.encode(NullModel(inputs=spec, outputs=spec)))
    report = toolkit.profile(str(path), "null", budget_s=0.2, processes=1, operators=True)
    (case,) = report.cases
    assert case.status == "ok" and case.operators is None and report.peaks == []
    assert any("no time per operator" in text for text in case.warnings)
