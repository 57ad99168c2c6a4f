"""Latency distributions: one histogram per case, all of a family on one logarithmic axis.

Two views of the same samples: where they lie, in time, and how they spread, relative to their own median. Samples are
counted in bins of one to two pixels, so the page does not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from toolkit.profiler.records import CaseRecord
from toolkit.report.columns import shortened
from toolkit.report.names import Family
from toolkit.report.numbers import duration
from toolkit.report.page import svg
from toolkit.report.page.context import Context, plural
from toolkit.report.page.frame import figure
from toolkit.report.page.scales import BOLD, CHARACTER, Scale, padded
from toolkit.report.page.units import clock

Samples = npt.NDArray[np.float64]

_ROW, _HEIGHT, _TOP, _BOTTOM, _MARGIN = 58, 34, 4, 40, 12
_NARROWEST = 2.0
"""Pixels per bin."""
_FAMILIES = 4
_TAIL = 0.999
_WIDEST = 8.0
"""Times the median: where the axis of the relative view ends at most."""


def distributions(context: Context) -> Iterator[str]:
    """Two charts per family of cases with samples."""
    for family in context.families[:_FAMILIES]:
        cases = [case for case in family.cases if len(case.samples_ns) > 1]
        if not cases:
            continue
        if len(context.families) > 1:
            yield f"<h3>{escape(family.title)}</h3>"
        yield f'<div class="charts">{_absolute(context, family, cases)}{_relative(context, family, cases)}</div>'
    if len(context.families) > _FAMILIES:
        yield f'<p class="key">Those of the first {_FAMILIES} groups; JSON has the samples of all.</p>'


def _absolute(context: Context, family: Family, cases: Sequence[CaseRecord]) -> str:
    samples = [np.asarray(case.samples_ns, dtype=np.float64) for case in cases]
    low, high = padded([bound for one in samples for bound in _reach(one)], 0.03)
    told = f"Histograms of latency, {family.title}: " + "; ".join(
        f"{context.label(case, family)}: median {duration(float(np.median(one)))}"
        for case, one in zip(cases, samples, strict=True)
    )
    key = (
        "Heights: square root of the calls per bin, so that tails show. Line: median, band: its 99 % interval; ticks "
        "below: p90, p99, p99.9 as far as they are known."
    )
    return figure(
        lambda width: _rows(context, family, cases, samples, Scale(low, high, _MARGIN, width - _MARGIN), width, told),
        "Latency of single calls", key,
    )  # fmt: skip


def _relative(context: Context, family: Family, cases: Sequence[CaseRecord]) -> str:
    samples = [one / np.median(one) for one in (np.asarray(case.samples_ns, dtype=np.float64) for case in cases)]
    low, high = padded([min(bound, _WIDEST) for one in samples for bound in (*_reach(one), 0.95, 1.1)], 0.03)
    told = "Histograms of latency over its own median: " + "; ".join(
        f"{context.label(case, family)}: middle half within {np.subtract(*np.quantile(one, [0.75, 0.25])):.1%}"
        for case, one in zip(cases, samples, strict=True)
    )
    return figure(
        lambda width: _rows(
            context, family, cases, samples, Scale(low, high, _MARGIN, width - _MARGIN), width, told, True
        ),
        "The same, as multiples of each case’s own median",
        "How steady each one is: the same axis for all, 1 is the median.",
    )


def _reach(samples: Samples) -> tuple[float, float]:
    """What the axis must hold: all but the slowest thousandth, which one hiccup could stretch over decades."""
    return float(samples.min()), float(np.quantile(samples, _TAIL))


def _rows(
    context: Context, family: Family, cases: Sequence[CaseRecord], samples: Sequence[Samples], scale: Scale,
    width: int, told: str, relative: bool = False,
) -> str:  # fmt: skip
    height = _TOP + _ROW * len(cases) + _BOTTOM
    bottom = height - _BOTTOM
    name = _times if relative else clock
    ticks = scale.ticks(name)
    body = [svg.line(scale(value), _TOP, scale(value), bottom + 4, "grid") for value in ticks]
    for index, (case, one) in enumerate(zip(cases, samples, strict=True)):
        series, label = f"s{context.series(case) % len(svg.SHAPES)}", context.label(case, family)
        body += _row(series, label, case, one, scale, _TOP + _ROW * index, width, relative)
    for value in ticks:
        room = len(name(value)) * CHARACTER / 2
        body.append(svg.text(name(value), min(max(scale(value), room), width - room), bottom + 18, "middle"))
    axis = "latency ÷ median, logarithmic" if relative else "latency, logarithmic"
    body.append(svg.text(axis, width / 2, height - 5, "middle", "title"))
    return svg.chart(width, height, "".join(body), told)


def _row(
    series: str, label: str, case: CaseRecord, samples: Samples, scale: Scale, top: float, width: int, relative: bool
) -> Iterator[str]:
    base = top + 16 + _HEIGHT
    right = _spread(case, samples) if relative else _median(case)
    room = int((width - 2 * _MARGIN - len(right) * CHARACTER) / BOLD) - 1
    yield svg.path(_outline(samples, scale, base), f"histogram {series}", closed=True)
    yield svg.line(scale.start, base, scale.end, base, "axis")
    yield from _marks(case, scale, top + 16, base, 1.0 if not relative else float(np.median(case.samples_ns)))
    yield svg.text(shortened(label, room), _MARGIN, top + 12, class_="label")
    yield svg.text(right, width - _MARGIN, top + 12, "end")


def _outline(samples: Samples, scale: Scale, base: float) -> list[tuple[float, float]]:
    """Steps over bins of equal width on the axis, from the first that holds a sample to the last."""
    bins = _bins(samples, scale)
    edges = np.geomspace(scale.low, scale.high, bins + 1)
    counts, _ = np.histogram(samples, edges)
    heights = np.sqrt(counts / max(1, counts.max())) * _HEIGHT
    places = np.linspace(scale.start, scale.end, bins + 1)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return [(scale.start, base)]
    points = [(float(places[filled[0]]), base)]
    for index in range(int(filled[0]), int(filled[-1]) + 1):
        points += [(float(places[index]), base - heights[index]), (float(places[index + 1]), base - heights[index])]
    return [*list(_without_repeats(points)), (float(places[filled[-1] + 1]), base)]


def _bins(samples: Samples, scale: Scale) -> int:
    """As many as the axis has pairs of pixels, fewer where there are few samples.

    Source: Freedman and Diaconis (1981): 2 · IQR · n^(-1/3), here of logarithms.
    """
    low, high = np.quantile(np.log(samples), [0.25, 0.75])
    width = 2 * (high - low) / len(samples) ** (1 / 3)
    most = (scale.end - scale.start) / _NARROWEST
    return int(min(most, max(most / 4, np.log(scale.high / scale.low) / max(width, 1e-9))))


def _without_repeats(points: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Without the points in the middle of a level stretch."""
    for index, point in enumerate(points):
        if not (0 < index < len(points) - 1 and points[index - 1][1] == point[1] == points[index + 1][1]):
            yield point


def _marks(case: CaseRecord, scale: Scale, top: float, base: float, unit_ns: float) -> Iterator[str]:
    found = case.latency_ns
    assert found is not None and found.p50 is not None, "measured cases have a median"
    if found.p50_ci is not None:
        low, high = (scale(min(max(end / unit_ns, scale.low), scale.high)) for end in found.p50_ci)
        yield svg.rectangle(low, top, max(1.5, high - low), base - top, "interval")
    yield svg.line(scale(found.p50 / unit_ns), top, scale(found.p50 / unit_ns), base, "median")
    for value in (found.p90, found.p99, found.p99_9):
        if value is not None and scale.low <= value / unit_ns <= scale.high:
            yield svg.line(scale(value / unit_ns), base, scale(value / unit_ns), base + 6, "tick")


def _median(case: CaseRecord) -> str:
    assert case.latency_ns is not None and case.latency_ns.p50 is not None, "measured cases have a median"
    return duration(case.latency_ns.p50)


def _spread(case: CaseRecord, samples: Samples) -> str:
    slow = int(np.count_nonzero(samples > 2))
    return f"{plural(slow, 'call')} of {len(samples)} beyond 2 ×" if slow else f"{len(samples)} calls"


def _times(value: float) -> str:
    return f"{value:g} ×"
