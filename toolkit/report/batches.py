"""Which batches an offline case tried, in lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.report.columns import note
from toolkit.report.numbers import digits

_MANY = 12


def batch_lines(report: ProfileReport) -> Iterator[str]:
    """The best batch of each offline case and what the others gave."""
    found = [case for case in report.measured if case.batches_tried]
    for case in found:
        streams = f", {case.streams} streams" if case.streams > 1 else ""
        yield from note(f"{case.id}: batch {case.batch}{streams}; tried: {tried(case)}")
    if found:
        yield ""


def tried(case: CaseRecord) -> str:
    """The batches and their samples per second; the first and the last of very many."""
    texts = [f"{batch}: {rate(value)}/s" for batch, value in case.batches_tried]
    shown = texts if len(texts) <= _MANY else [*texts[:2], "…", *texts[-(_MANY - 3) :]]
    return ", ".join(shown)


def rate(value: float) -> str:
    """Samples, with thousands: ``12.3k``."""
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{digits(value / factor)}{unit}"
    return digits(value)
