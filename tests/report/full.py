"""A report in which everything is measured, with values as a two-core machine gives them: made up, but consistent."""

from __future__ import annotations

import msgspec
import numpy as np

from toolkit.profiler.environment import environment
from toolkit.profiler.records import (
    AccuracyRecord,
    CaseRecord,
    ComparisonRecord,
    EnergyRecord,
    Latency,
    OperatorProfile,
    OperatorRecord,
    PeakRecord,
    PriceRecord,
    ProfileReport,
    SweepRecord,
)
from toolkit.profiler.statistics import PERCENTILES, jitter, percentile
from toolkit.providers.session import Execution

MS = 1_000_000
PEAKS = {"float32": 146e9, "int8": 766e9}
BYTES_PER_S = 25e9
# (target, precision, engine, median in ms, spread, share of slow calls, accuracy, size in MB)
MEASURED = (
    ("torch-eager", "float32", "torch 2.13.0", 33.4, 0.03, 0.004, 0.8175, 0.0),
    ("cpu-fp32", "float32", "CPUExecutionProvider 1.32.0", 20.7, 0.02, 0.002, 0.8175, 102.2),
    ("cpu-int8", "int8", "CPUExecutionProvider 1.32.0", 7.31, 0.025, 0.03, 0.8125, 25.9),
    ("openvino-f32", "float32", "openvino 2026.4", 18.9, 0.015, 0.001, 0.8175, 102.2),
    ("openvino-int8-throughput", "int8", "openvino 2026.4", 5.62, 0.04, 0.15, 0.8142, 25.8),
    ("openvino-bf16", "bfloat16", "openvino 2026.4", 10.9, 0.02, 0.002, 0.7960, 51.2),
)


def samples(median_ms: float, spread: float, slow: float, count: int, seed: int) -> list[int]:
    """Calls about a median, some of them slower by half: what a neighbour on the machine does."""
    generator = np.random.default_rng(seed)
    found = median_ms * np.exp(np.abs(generator.normal(0, spread, count)) - 0.67 * spread)
    found[generator.random(count) < slow] *= 1.5 + generator.exponential(0.3)
    return [int(value * MS) for value in found]


def latency(found: list[int]) -> Latency:
    blocks = [np.asarray(found[start : start + 10], dtype=np.int64) for start in range(0, len(found), 10)]
    values: dict[str, object] = {}
    withheld = {}
    for name, share in PERCENTILES.items():
        item = percentile(blocks, share)
        values |= {name: item.value, f"{name}_ci": item.interval}
        withheld |= {name: item.withheld} if item.withheld else {}
    return Latency(jitter=jitter(np.asarray(found)), withheld=withheld, **values)  # type: ignore[arg-type]


def case(number: int, batch: int = 1, scale: float = 1.0, count: int = 900) -> CaseRecord:
    target, precision, engine, median, spread, slow, accuracy, megabytes = MEASURED[number]
    found = samples(median * scale, spread, slow, count, seed=number + batch)
    model = "zoo:resnet50" if engine.startswith("torch") else "resnet50.onnx"
    name, version = engine.split()
    middle = found[len(found) // 2]
    return CaseRecord(
        id=f"{model}@{target}[batch={batch}]", model=model, target=target, provider=target.split("-")[0],
        precision=precision, batch=batch, dims={}, status="ok", latency_ns=latency(found), samples_ns=found,
        blocks=[(0, n, 10) for n in range(count // 10)], calls=count, throughput_per_s=batch * 1e9 / middle,
        import_ns=(900 if name == "torch" else 45) * MS, load_ns=310 * MS, first_inference_ns=middle * 3,
        peak_memory_bytes=int(312e6 + megabytes * 2e6), base_memory_bytes=30_000_000,
        execution=Execution(name, version, "CPU", 2, {name: 122}, {precision: 118, "int64": 4}),
        model_sha256="" if name == "torch" else f"{number:064x}", size_bytes=int(megabytes * 1e6),
        energy=EnergyRecord(joules=15.0 * middle / 1e9, watts=15.0, source="machine.toml"),
        price=PriceRecord(per_million=0.12 * middle / 3.6e6, currency="EUR"),
        accuracy=AccuracyRecord(
            metric="accuracy", value=accuracy, interval=(accuracy - 0.017, accuracy + 0.016), samples=2000
        ),
    )  # fmt: skip


def operators(record: CaseRecord, engine_ops: tuple[tuple[str, str, float, float, float], ...]) -> OperatorProfile:
    """(engine's operator, ONNX operators, share, GFLOP, MB) of each into a profile of ``record``."""
    assert record.latency_ns is not None and record.latency_ns.p50 is not None
    total = float(record.latency_ns.p50)
    listed = []
    for index, (ran, original, share, gflop, megabytes) in enumerate(engine_ops):
        names = original.split("+") if original else []
        time_s, flops, moved = share * total / 1e9, int(gflop * 1e9), int(megabytes * 1e6)
        roof = min(PEAKS.get(record.precision, 146e9), flops / moved * BYTES_PER_S)
        listed.append(
            OperatorRecord(
                name=f"{ran}_{index}", operator=ran, operators=tuple(names), share=share, time_ns=share * total,
                nodes=tuple(f"/layer{index % 4 + 1}/{index}/{op.lower()}{index}/{op}" for op in names),
                precision=record.precision, flops=flops or None, bytes=moved,
                of_peak=flops / time_s / roof if flops else None,
                bound="" if not flops else "compute" if roof >= 146e9 else "memory",
            )
        )  # fmt: skip
    explained = sum(item.time_ns for item in listed)
    return OperatorProfile(
        latency_ns=total, instrumented_ns=total * 1.06, unexplained_ns=total - explained, operators=listed,
        notes=["3 nodes that the engine folded away have no time"],
    )  # fmt: skip


CPU_OPS = (
    ("FusedConv", "Conv+Relu", 0.21, 0.56, 9.4), ("FusedConv", "Conv+Add+Relu", 0.14, 0.39, 6.4),
    ("Conv", "Conv", 0.11, 0.28, 5.2), ("FusedConv", "Conv+Relu", 0.09, 0.23, 4.6), ("Conv", "Conv", 0.08, 0.2, 4.1),
    ("FusedConv", "Conv+Relu", 0.07, 0.17, 3.8), ("Conv", "Conv", 0.06, 0.15, 2.9),
    ("MaxPool", "MaxPool", 0.05, 0.0018, 4.0),
    ("Gemm", "Gemm", 0.04, 0.0041, 8.2), ("ReorderOutput", "", 0.03, 0, 3.2), ("Add", "Add", 0.02, 0.0008, 9.6),
    ("GlobalAveragePool", "GlobalAveragePool", 0.01, 0.0001, 0.4), ("Softmax", "Softmax", 0.002, 0.000005, 0.008),
)  # fmt: skip
OPENVINO_OPS = (
    ("Convolution", "Conv+Relu", 0.24, 0.56, 2.4), ("Convolution", "Conv+Add+Relu", 0.19, 0.39, 1.7),
    ("Convolution", "Conv", 0.15, 0.31, 1.5), ("Reorder", "", 0.08, 0, 0.8),
    ("FullyConnected", "Gemm", 0.05, 0.0041, 2.1),
    ("Pooling", "MaxPool", 0.04, 0.0018, 1.0), ("Convert", "", 0.02, 0, 0.3),
)  # fmt: skip


def sweep(target: int, batches: tuple[int, ...], exponent: float) -> tuple[SweepRecord, list[CaseRecord]]:
    cases = [case(target, batch, batch**exponent, count=80) for batch in batches]
    cases = [msgspec.structs.replace(found, accuracy=None) for found in cases]
    record = SweepRecord(
        model=cases[0].model, target=cases[0].target, variable="batch", exponent=exponent,
        points=[(found.batch or 0, found.id) for found in cases], exponent_ci=(exponent - 0.02, exponent + 0.02),
    )  # fmt: skip
    return record, cases


def full_report() -> ProfileReport:
    """Six targets, two of them with operators, two sweeps over batch, and targets that are not there."""
    cases = [case(number) for number in range(len(MEASURED))]
    noisy = ["noisy (the median is known to -6%, +7%)", "15% of calls took more than 1.5 times the median"]
    cases[1] = msgspec.structs.replace(cases[1], operators=operators(cases[1], CPU_OPS))
    cases[4] = msgspec.structs.replace(cases[4], operators=operators(cases[4], OPENVINO_OPS), warnings=noisy)
    cases[5] = msgspec.structs.replace(
        cases[5], energy=EnergyRecord(reason="RAPL cannot be read here: /sys/class/powercap is empty")
    )
    comparisons = []
    for found in cases[1:]:
        assert found.latency_ns and cases[0].latency_ns and found.latency_ns.p50 and cases[0].latency_ns.p50
        ratio = found.latency_ns.p50 / cases[0].latency_ns.p50
        comparisons.append(
            ComparisonRecord(
                baseline=cases[0].id, candidate=found.id, ratio=ratio, ratio_ci=(ratio * 0.97, ratio * 1.04),
                verdict="faster", rounds=120, processes=3,
            )
        )  # fmt: skip
    comparisons[2] = msgspec.structs.replace(
        comparisons[2], ratio=1.004, ratio_ci=(0.98, 1.02), verdict="no significant difference"
    )
    comparisons[4] = msgspec.structs.replace(comparisons[4], ratio=1.31, ratio_ci=(1.27, 1.36), verdict="slower")
    swept = [sweep(1, (2, 4, 8, 16), 0.97), sweep(4, (2, 4, 8, 16), 0.83)]
    for record, found_cases in swept:
        cases += found_cases
        record.points.insert(0, (1.0, found_cases[0].id.replace("batch=2", "batch=1")))
    nothing = {"latency_ns": None, "samples_ns": [], "blocks": [], "execution": None, "accuracy": None}
    gone = [
        msgspec.structs.replace(
            cases[1], id=f"resnet50.onnx@{target}", target=target, status="unavailable", reason=reason, **nothing
        )
        for target, reason in (
            ("cuda-fp32", "onnxruntime has no CUDA provider; pip install 'onnx-toolkit[gpu]'"),
            ("tensorrt-fp16", "onnxruntime has no TensorRT provider; pip install 'onnx-toolkit[gpu]'"),
        )
    ]
    peaks = [
        PeakRecord(target=target, precision=precision, flops_per_s=PEAKS[precision], bytes_per_s=BYTES_PER_S)
        for target in ("cpu-fp32", "openvino-int8-throughput")
        for precision in PEAKS
    ]
    return ProfileReport(
        environment=environment(), settings={"budget_s": 120.0, "processes": 3, "seed": 0, "data": "digits.npz"},
        cases=[*cases, *gone], comparisons=comparisons, sweeps=[record for record, _ in swept], peaks=peaks,
        warnings=["other processes kept 0.31 cores busy meanwhile"],
    )  # fmt: skip
