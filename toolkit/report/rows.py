"""A profile report as the rows that every format shows."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from toolkit.profiler.pairing import FEWEST_PROCESSES, FEWEST_ROUNDS
from toolkit.profiler.records import CaseRecord, ComparisonRecord, ProfileReport
from toolkit.report.numbers import duration, duration_with_interval, ratio_with_interval

MISSING = "–"
UNJUDGED = "too few rounds"
_FURTHEST = "p99_9"


class Row(msgspec.Struct, frozen=True):
    """One measured case in words."""

    case: CaseRecord
    comparison: ComparisonRecord | None
    is_baseline: bool
    p50: str
    p90: str
    p99: str
    ratio: str
    verdict: str


class Section(msgspec.Struct, frozen=True):
    """Measured cases of one model at one size."""

    title: str
    rows: tuple[Row, ...]


def sections(report: ProfileReport) -> list[Section]:
    """Measured cases by model, precision and size, in the order of the report."""
    found: dict[str, list[Row]] = {}
    for case in report.measured:
        found.setdefault(_title(case), []).append(row(case, report))
    return [Section(title, tuple(rows)) for title, rows in found.items()]


def _title(case: CaseRecord) -> str:
    sizes = [f"{name} {size}" for name, size in case.dims.items()]
    if case.scenario == "offline":  # each target at its own best batch
        sizes.insert(0, "offline")
    else:
        sizes.insert(0, f"batch {case.batch}")
        sizes += [f"{case.streams} streams"] if case.scenario == "multi-stream" else []
    return "  ".join(part for part in (case.model, case.precision, ", ".join(sizes)) if part)


def row(case: CaseRecord, report: ProfileReport) -> Row:
    """A measured case in words, with its comparison."""
    latency, comparison = case.latency_ns, report.comparison(case)
    assert latency is not None and latency.p50 is not None, "measured cases have a median"
    is_baseline = any(item.baseline == case.id for item in report.comparisons)
    return Row(
        case=case,
        comparison=comparison,
        is_baseline=is_baseline,
        p50=duration_with_interval(latency.p50, latency.p50_ci),
        p90=MISSING if latency.p90 is None else duration(latency.p90),
        p99=MISSING if latency.p99 is None else duration(latency.p99),
        ratio=ratio_with_interval(comparison.ratio, comparison.ratio_ci) if comparison else "baseline" * is_baseline,
        verdict=_verdict(comparison),
    )


def _verdict(comparison: ComparisonRecord | None) -> str:
    """The verdict; too little to judge is told from a difference that was looked for and not found."""
    if comparison is None:
        return ""
    return comparison.verdict if comparison.ratio_ci else UNJUDGED


def remarks(report: ProfileReport) -> Iterator[tuple[str, str]]:
    """What a reader should know beside the numbers, as (about whom, what), all about one case together."""
    if report.warnings:
        yield "this run", "; ".join(report.warnings)
    for case in report.measured:
        found = [*_withheld(case), *doubts(case, report.comparison(case))]
        if found:
            yield case.id, "; ".join(found)


def doubts(case: CaseRecord, comparison: ComparisonRecord | None) -> list[str]:
    """What a reader should know beside the numbers of one case."""
    found = []
    if comparison is not None and comparison.ratio_ci is None:
        found.append(f"no verdict: {comparison.rounds} rounds with the baseline, {FEWEST_ROUNDS} are needed")
    elif comparison is not None and comparison.processes < FEWEST_PROCESSES:
        found.append("judged by too few processes: where their memory happened to land is in the ratio")
    return found + case.warnings


def _withheld(case: CaseRecord) -> list[str]:
    """The first percentile that is withheld and why; those further out need even more."""
    missing = list((case.latency_ns.withheld if case.latency_ns else {}).items())
    if not missing or missing[0][0] == _FURTHEST:
        return []  # few runs are long enough for that one: its absence is no cause for doubt
    name, why = missing[0]
    return [f"no {called(name)}: {why}" + "".join(f"; nor {called(further)}" for further, _ in missing[1:])]


def called(percentile: str) -> str:
    """A percentile's field name as people write it: ``p99_9`` is p99.9."""
    return percentile.replace("_", ".")


def absent(report: ProfileReport) -> dict[str, dict[str, list[str]]]:
    """Cases without numbers: status, then reason, then whom it concerns; unavailable targets stand for all models."""
    found: dict[str, dict[str, list[str]]] = {}
    for case in report.cases:
        if case.status != "ok":
            who = case.target if case.status == "unavailable" else case.id
            concerned = found.setdefault(case.status, {}).setdefault(case.reason, [])
            if who not in concerned:
                concerned.append(who)
    return found


STATUS_TITLES = {"failed": "Failed", "unavailable": "Not available here", "not_applicable": "Not applicable"}


def baseline_names(report: ProfileReport) -> list[str]:
    return list(dict.fromkeys(item.baseline for item in report.comparisons))
