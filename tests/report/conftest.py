"""A profile report made by hand: one baseline, one faster and one equal case, and one of each that has no numbers."""

from __future__ import annotations

import msgspec
import pytest

from toolkit.profiler.environment import environment
from toolkit.profiler.records import CaseRecord, ComparisonRecord, Latency, ProfileReport
from toolkit.providers.session import Execution

MS = 1_000_000


def case(model: str, target: str, p50: float, **changes: object) -> CaseRecord:
    latency = Latency(
        p50=int(p50 * MS), p50_ci=(int(p50 * 0.98 * MS), int(p50 * 1.03 * MS)), p90=int(p50 * 1.2 * MS),
        p99=None, withheld={"p99": "512 samples, 150 more are needed"},
    )  # fmt: skip
    record = CaseRecord(
        id=f"{model}@{target}", model=model, target=target, provider="p", precision="float32", batch=1,
        dims={"seq": 64}, status="ok", latency_ns=latency, samples_ns=[int(p50 * MS)] * 4, blocks=[(0, 0, 4)],
        calls=512, throughput_per_s=1e3 / p50, import_ns=30 * MS, load_ns=250 * MS, first_inference_ns=9 * MS,
        peak_memory_bytes=123_000_000, base_memory_bytes=30_000_000,
        execution=Execution("CPUExecutionProvider", "1.32.0", "CPU", 2, {"CPUExecutionProvider": 17}, {"float32": 17}),
    )  # fmt: skip
    return msgspec.structs.replace(record, **changes)


@pytest.fixture
def report() -> ProfileReport:
    nothing = {"latency_ns": None, "samples_ns": [], "blocks": [], "execution": None}
    skipped = [
        case("bert.onnx", "cuda-fp32", 1, status="unavailable", reason="no NVIDIA driver; install one", **nothing),
        case(
            "bert.onnx", "cpu-int8", 1, status="not_applicable", reason="the file is float32; it takes int8", **nothing
        ),
        case("bad|<b>.onnx", "cpu", 1, status="failed", reason="its worker was killed by SIGSEGV", **nothing),
    ]
    measured = [
        case("bert.onnx", "cpu-fp32", 20.7, warnings=["noisy (the median is known to -2%, +3%)"]),
        case("bert.onnx", "openvino-int8-throughput-with-a-long-name", 9.87, precision="float32"),
        case("twin & co.onnx", "cpu-fp32", 20.6),
    ]
    base = measured[0].id
    faster = ComparisonRecord(
        baseline=base, candidate=measured[1].id, ratio=0.4768, ratio_ci=(0.4651, 0.4893), verdict="faster", rounds=90,
        processes=3,
    )  # fmt: skip
    equal = msgspec.structs.replace(
        faster, candidate=measured[2].id, ratio=0.996, ratio_ci=(0.981, 1.012), verdict="no significant difference"
    )
    return ProfileReport(
        environment=environment(), settings={"budget_s": 30.0, "seed": 0}, cases=[*measured, *skipped],
        comparisons=[faster, equal], warnings=["other processes kept 0.50 cores busy meanwhile"],
    )  # fmt: skip
