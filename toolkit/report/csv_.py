"""A profile report as CSV: one line per case, times in nanoseconds; raw samples are in the JSON only."""

from __future__ import annotations

import csv
import io

from toolkit.profiler.records import CaseRecord, ProfileReport

FIELDS = (
    "model", "target", "provider", "precision", "batch", "dims", "status", "reason", "p50_ns", "p50_low_ns",
    "p50_high_ns", "p90_ns", "p99_ns", "samples", "throughput_per_s", "import_ns", "load_ns", "first_inference_ns",
    "peak_memory_bytes", "baseline", "ratio", "ratio_low", "ratio_high", "verdict", "warnings",
    # Since schema 2, behind the rest so that readers by position go on working.
    "p95_ns", "p99_9_ns", "jitter", "scenario", "streams", "size_bytes", "model_sha256", "device_memory_bytes",
    "device_latency_ns", "copy_ns", "joules_per_sample", "watts", "energy_source", "price_per_million", "currency",
    "metric", "quality", "quality_low", "quality_high", "quality_samples", "explained", "slowest_operator",
)  # fmt: skip


def as_csv(report: ProfileReport) -> str:
    """RFC 4180 with a header line; what is missing is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for case in report.cases:
        writer.writerow({**_case(case), **_latency(case), **_beyond(case), **_comparison(case, report)})
    return text.getvalue()


def _case(case: CaseRecord) -> dict[str, object]:
    plain = (
        "model", "target", "provider", "precision", "batch", "status", "reason", "throughput_per_s", "import_ns",
        "load_ns", "first_inference_ns", "peak_memory_bytes", "scenario", "streams", "size_bytes", "model_sha256",
        "device_memory_bytes", "device_latency_ns", "copy_ns",
    )  # fmt: skip
    return {name: getattr(case, name) for name in plain} | {
        "dims": " ".join(f"{name}={size}" for name, size in case.dims.items()),
        "samples": case.calls,
        "warnings": "; ".join(case.warnings),
    }


def _latency(case: CaseRecord) -> dict[str, object]:
    found = case.latency_ns
    if found is None:
        return {}
    low, high = found.p50_ci or (None, None)
    return {
        "p50_ns": found.p50, "p50_low_ns": low, "p50_high_ns": high, "p90_ns": found.p90, "p95_ns": found.p95,
        "p99_ns": found.p99, "p99_9_ns": found.p99_9, "jitter": found.jitter,
    }  # fmt: skip


def _beyond(case: CaseRecord) -> dict[str, object]:
    found: dict[str, object] = {}
    if case.energy is not None:
        found |= {
            "joules_per_sample": case.energy.joules, "watts": case.energy.watts, "energy_source": case.energy.source,
        }  # fmt: skip
    if case.price is not None:
        found |= {"price_per_million": case.price.per_million, "currency": case.price.currency}
    if case.accuracy is not None:
        low, high = case.accuracy.interval or (None, None)
        found |= {
            "metric": case.accuracy.metric, "quality": case.accuracy.value, "quality_low": low, "quality_high": high,
            "quality_samples": case.accuracy.samples,
        }  # fmt: skip
    if case.operators is not None and case.operators.operators:
        explained = 1 - case.operators.unexplained_ns / case.operators.latency_ns
        found |= {"explained": round(explained, 4), "slowest_operator": case.operators.operators[0].name}
    return found


def _comparison(case: CaseRecord, report: ProfileReport) -> dict[str, object]:
    found = report.comparison(case)
    if found is None:
        return {}
    low, high = found.ratio_ci or (None, None)
    return {
        "baseline": found.baseline, "ratio": found.ratio, "ratio_low": low, "ratio_high": high, "verdict":
        found.verdict,
    }  # fmt: skip
