"""A profile report for the terminal: 80 columns, plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.report.batches import batch_lines
from toolkit.report.columns import WIDTH, bar, columns, note, shortened
from toolkit.report.costs import COSTS, QUALITY, TAILS, Column, cells, present, sources
from toolkit.report.names import words
from toolkit.report.numbers import duration
from toolkit.report.operators import operator_tables
from toolkit.report.plot import sweep_lines
from toolkit.report.rows import STATUS_TITLES, UNJUDGED, Section, absent, baseline_names, remarks, sections
from toolkit.report.sparklines import sparklines

_HEAD = ("target", "p50 [99% interval]", "p90", "p99", "time/base [99%]", "verdict")
_NUMERIC = (2, 3)
_SHORT = {"no significant difference": "no diff", UNJUDGED: "too few"}
_LISTED = 6
_BAR = 40
_NAME = 22


def table(report: ProfileReport) -> str:
    """The whole report as text."""
    return "\n".join(line for part in _PARTS for line in part(report)).rstrip()


def _numbers(report: ProfileReport) -> Iterator[str]:
    found = sections(report)
    if not found:
        yield from ("Nothing was measured.", "")
        return
    rows: list[tuple[str, ...]] = [_HEAD]
    for section in found:
        rows += _rows(section)
    lines = iter(columns(rows, _NUMERIC))
    yield next(lines)
    for section in found:
        yield ""
        yield shortened(section.title, WIDTH)
        yield from (next(lines) for _ in section.rows)
    yield ""


def _rows(section: Section) -> list[tuple[str, ...]]:
    return [
        (f"  {row.case.target}", row.p50, row.p90, row.p99, row.ratio, _SHORT.get(row.verdict, row.verdict))
        for row in section.rows
    ]


def _bars(report: ProfileReport) -> Iterator[str]:
    """Medians side by side, for those that were compared with each other."""
    for name in baseline_names(report):
        members = {name, *(item.candidate for item in report.comparisons if item.baseline == name)}
        medians = {
            case.id: case.latency_ns.p50 or 0
            for case in report.measured
            if case.id in members and case.latency_ns and case.scenario != "offline"
        }
        if not medians:  # offline: of batches of different sizes, throughput is compared
            continue
        longest = max(medians.values())
        yield from columns([(f"  {who}", bar(ns / longest, _BAR), duration(ns)) for who, ns in medians.items()])
        yield ""


def _beyond(report: ProfileReport) -> Iterator[str]:
    """Tails, costs and quality, in as many tables as it takes to fit."""
    cases = report.measured
    names = words(cases)
    for part in _fitting(cases, [c for c in present(cases, (*TAILS, *QUALITY, *COSTS)) if c.short]):
        rows = [("", *(column.short for column in part))]
        rows += [(f"  {names[case.id]}", *cells(case, part)) for case in cases]
        yield from columns(rows, range(1, len(part) + 1))
        yield ""
    for text in sources(report):
        yield from note(text)
        yield ""


def _fitting(cases: Sequence[CaseRecord], found: Sequence[Column]) -> Iterator[list[Column]]:
    """``found`` in parts that leave room for names."""
    part: list[Column] = []
    left = WIDTH - _NAME
    for column in found:
        width = 1 + max(len(column.short), *(len(text) for case in cases for text in cells(case, [column])))
        if part and width > left:
            yield part
            part, left = [], WIDTH - _NAME
        part.append(column)
        left -= width
    if part:
        yield part


def _remarks(report: ProfileReport) -> Iterator[str]:
    found = list(remarks(report))
    if found:
        yield "Read with care:"
        for who, text in found:
            yield from note(f"{who}: {text}")
        yield ""


def _absent(report: ProfileReport) -> Iterator[str]:
    for status, reasons in absent(report).items():
        yield f"{STATUS_TITLES[status]}:"
        for reason, concerned in reasons.items():
            more = f" and {len(concerned) - _LISTED} more" if len(concerned) > _LISTED else ""
            yield from note(f"{', '.join(concerned[:_LISTED])}{more}: {reason}")
        yield ""


def _where(report: ProfileReport) -> Iterator[str]:
    machine = report.environment
    gpus = "".join(f", {gpu.get('name', 'GPU')}" for gpu in machine.gpus)
    yield f"{machine.cpu}, {machine.usable_cores} cores{gpus}; environment {machine.fingerprint}"
    names = baseline_names(report)
    if names:
        whose = shortened(names[0], 31) if len(names) == 1 else "the baseline of the same size"
        yield f"time/base: time over that of {whose}; below 1 is faster."
    if report.interrupted:
        yield "Interrupted: this is what had been measured so far."


_PARTS = (_numbers, _bars, sparklines, _beyond, batch_lines, sweep_lines, operator_tables, _remarks, _absent, _where)
