"""What a run found, in a sentence or two that stand on their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from toolkit.profiler.records import CaseRecord, ComparisonRecord, ProfileReport
from toolkit.report.names import Family, families, scenario, sizes
from toolkit.report.numbers import digits, duration, duration_with_interval
from toolkit.report.quality import four, quality
from toolkit.report.rows import UNJUDGED


def headline(report: ProfileReport) -> str:
    """The fastest case against its baseline, of at most two groups; nothing that was not judged is claimed."""
    if not report.measured:
        return "Nothing was measured."
    found = [family for family in families(report) if family.comparable] or families(report)
    if len(found) != 2:
        return _best(report, found[0])
    return " ".join(f"{_named(family, report)}: {_best(report, family)}" for family in found)


def tally(report: ProfileReport) -> str:
    """How all comparisons came out, and what has no numbers; "" where there is nothing to add."""
    return " ".join([*_verdicts(report), *_absent([case for case in report.cases if case.status != "ok"])])


def _named(family: Family, report: ProfileReport) -> str:
    case = family.cases[0]
    several = len({other.model for other in report.measured}) > 1
    parts = (case.model if several else "", sizes(case), scenario(case))
    text = ", ".join(part for part in parts if part) or case.model
    return text[:1].upper() + text[1:]


def _best(report: ProfileReport, family: Family) -> str:
    judged = [(case, found) for case in family.cases if (found := report.comparison(case)) is not None]
    base = next((case for case in report.measured if judged and case.id == judged[0][1].baseline), None)
    faster = [pair for pair in judged if pair[1].ratio_ci is not None and pair[1].verdict == "faster"]
    if base is not None and faster:
        return _faster(base, *min(faster, key=lambda pair: pair[1].ratio))
    if base is not None:
        return f"No other was found faster than {_called(base, family)}, which takes {_time(base)}."
    first = min(family.cases, key=lambda case: (case.latency_ns and case.latency_ns.p50) or 0)
    return f"{first.target} runs {first.model} in {_time(first)}."


def _faster(base: CaseRecord, case: CaseRecord, found: ComparisonRecord) -> str:
    assert case.latency_ns is not None and found.ratio_ci is not None, "only judged cases are called faster"
    low, high = 1 / found.ratio_ci[1], 1 / found.ratio_ci[0]
    other = base.target if base.model == case.model else f"{base.model} on {base.target}"
    text = (
        f"{case.target} runs {case.model} in {duration(case.latency_ns.p50 or 0)}, "
        f"{digits(1 / found.ratio)} × as fast as {other} [{digits(low)}, {digits(high)}]"
    )
    return f"{text}{_at_quality(case, base)}."


def _at_quality(case: CaseRecord, base: CaseRecord) -> str:
    if case.accuracy is None:
        return ""
    same = base.accuracy is not None and base.accuracy.metric == case.accuracy.metric
    beside = f" (there {four(base.accuracy.value)})" if same and base.accuracy is not None else ""
    return f", with {quality(case.accuracy)}{beside}"


def _called(case: CaseRecord, family: Family) -> str:
    return case.target if len({other.model for other in family.cases}) == 1 else f"{case.model} on {case.target}"


def _time(case: CaseRecord) -> str:
    latency = case.latency_ns
    return "an unknown time" if latency is None else duration_with_interval(latency.p50 or 0, latency.p50_ci)


def _verdicts(report: ProfileReport) -> Iterator[str]:
    verdicts = Counter(item.verdict if item.ratio_ci else UNJUDGED for item in report.comparisons)
    if len(report.comparisons) > 1:
        counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        yield f"Of {len(report.comparisons)} comparisons: {counted}."


def _absent(cases: Sequence[CaseRecord]) -> Iterator[str]:
    targets = {case.target for case in cases if case.status == "unavailable"}
    failed = sum(case.status == "failed" for case in cases)
    if failed:
        yield f"{failed} case{'s' * (failed > 1)} failed."
    if targets:
        yield f"{len(targets)} target{'s are' if len(targets) > 1 else ' is'} not available on this machine."
