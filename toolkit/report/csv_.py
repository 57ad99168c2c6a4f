"""A profile report as CSV: one line per case, times in nanoseconds; raw samples are in the JSON only."""

from __future__ import annotations

import csv
import io

from toolkit.profiler.records import CaseRecord, ProfileReport

FIELDS = (
    "model", "target", "provider", "precision", "batch", "dims", "status", "reason", "p50_ns", "p50_low_ns",
    "p50_high_ns", "p90_ns", "p99_ns", "samples", "throughput_per_s", "import_ns", "load_ns", "first_inference_ns",
    "peak_memory_bytes", "baseline", "ratio", "ratio_low", "ratio_high", "verdict", "warnings",
)  # fmt: skip


def as_csv(report: ProfileReport) -> str:
    """RFC 4180 with a header line; what is missing is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for case in report.cases:
        writer.writerow({**_case(case), **_latency(case), **_comparison(case, report)})
    return text.getvalue()


def _case(case: CaseRecord) -> dict[str, object]:
    plain = (
        "model", "target", "provider", "precision", "batch", "status", "reason", "throughput_per_s", "import_ns",
        "load_ns", "first_inference_ns", "peak_memory_bytes",
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
    return {"p50_ns": found.p50, "p50_low_ns": low, "p50_high_ns": high, "p90_ns": found.p90, "p99_ns": found.p99}


def _comparison(case: CaseRecord, report: ProfileReport) -> dict[str, object]:
    found = report.comparison(case)
    if found is None:
        return {}
    low, high = found.ratio_ci or (None, None)
    return {
        "baseline": found.baseline, "ratio": found.ratio, "ratio_low": low, "ratio_high": high, "verdict":
        found.verdict,
    }  # fmt: skip
