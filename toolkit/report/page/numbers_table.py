"""The table of latencies: per family of comparable cases, with intervals drawn and doubts beside the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from toolkit.profiler.records import CaseRecord, ComparisonRecord
from toolkit.profiler.statistics import PERCENTILES, needed_samples
from toolkit.report.costs import accuracy, jitter, throughput
from toolkit.report.interval_bars import interval_bar, ratio_bar, ratio_span, scale_ns
from toolkit.report.names import Family
from toolkit.report.numbers import duration
from toolkit.report.page.cells import Cell, Note, known, table
from toolkit.report.page.context import Context, plural
from toolkit.report.rows import MISSING, Row, called, doubts, row

_PERCENTILES = ("p90", "p95", "p99", "p99_9")


def numbers(context: Context) -> Iterator[str]:
    """One table per family."""
    for family in context.families:
        yield f"<h3>{escape(family.title)}</h3>"
        yield from _family(context, family)


def _family(context: Context, family: Family) -> Iterator[str]:
    rows = [row(case, context.report) for case in family.cases]
    compared = any(found.comparison for found in rows)
    scored = any(case.accuracy for case in family.cases)
    head = ["Case", "p50 [99 %]", *(called(name) for name in _PERCENTILES), "Jitter", "Throughput"]
    head += [_metric(family)] * scored + ["Time ÷ baseline [99 %]", "Verdict"] * compared
    scale, span = scale_ns(family.cases), ratio_span([found.comparison for found in rows if found.comparison])
    lines: list[Sequence[Cell] | Note] = []
    for found in rows:
        cells = [_name(context, family, found.case), _median(found, scale), *_tail(found.case)]
        cells += [_quality(found.case)] * scored + [_ratio(found, span), _verdict(found)] * compared
        lines.append(cells)
        lines += [Note(f"⚠ {escape(text)}") for text in ["; ".join(doubts(found.case, found.comparison))] if text]
    yield from table(f"Latency: {family.title}", head, lines)
    yield f'<p class="key">{escape(_key(scale, compared) + _withheld(family.cases))}</p>'


def _withheld(cases: Sequence[CaseRecord]) -> str:
    """How many calls the percentiles take that are not given."""
    missing = {name for case in cases if case.latency_ns for name in case.latency_ns.withheld}
    counts = [f"{called(name)} takes {needed_samples(PERCENTILES[name])}" for name in _PERCENTILES if name in missing]
    return f" {MISSING}: withheld, since there are too few calls to bound it: {', '.join(counts)}." if counts else ""


def _key(scale: float, compared: bool) -> str:
    bars = f"Bar: median; dark band: its 99 % interval; ticks: p90, p99; full width: {duration(scale)}."
    ratios = " Ratios: dot and 99 % interval about the line of no difference, logarithmic; left of it is faster."
    return bars + ratios * compared


def _name(context: Context, family: Family, case: CaseRecord) -> Cell:
    several = len({other.model for other in family.cases}) > 1
    about = " · ".join(filter(None, (case.model if several else "", case.precision, plural(case.calls, "call"))))
    return Cell(f'{context.told(case, family)}<br><span class="dim">{escape(about)}</span>')


def _median(found: Row, scale: float) -> Cell:
    return Cell(f"<span>{escape(found.p50)}</span>{interval_bar(found.case, scale)}", "drawn")


def _tail(case: CaseRecord) -> list[Cell]:
    latency = case.latency_ns
    assert latency is not None, "measured cases have latencies"
    cells = []
    for name in _PERCENTILES:
        value, why = getattr(latency, name), latency.withheld.get(name, "")
        hint = f'<span title="withheld: {escape(why)}">{MISSING}</span>' if why else MISSING
        cells.append(Cell(hint if value is None else duration(value)))
    return [*cells, known(jitter(case)), known(throughput(case))]


def _quality(case: CaseRecord) -> Cell:
    return known(accuracy(case), "span")


def _metric(family: Family) -> str:
    """The head of the column of qualities: their metric, if it is one."""
    metrics = {case.accuracy.metric for case in family.cases if case.accuracy}
    return f"{metrics.pop() if len(metrics) == 1 else 'quality'} [95 %]".replace("_", " ").capitalize()


def _ratio(found: Row, span: tuple[float, float]) -> Cell:
    drawn = "" if found.comparison is None else ratio_bar(found.comparison, span)
    return Cell(f"<span>{escape(found.ratio) or MISSING}</span>{drawn}", "drawn")


_SIGNS = {"faster": "▼ ", "slower": "▲ "}


def _verdict(found: Row) -> Cell:
    comparison: ComparisonRecord | None = found.comparison
    kind = found.verdict.split(" ")[0] if comparison is not None else ""
    return known(f"{_SIGNS.get(found.verdict, '')}{found.verdict}", kind)
