"""Latency against accuracy and against size, with the Pareto front: cases that nothing else beats in both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from html import escape

import msgspec

from toolkit.profiler.records import CaseRecord
from toolkit.report.names import Family
from toolkit.report.numbers import duration, duration_with_interval, size
from toolkit.report.page import svg
from toolkit.report.page.context import Context
from toolkit.report.page.frame import Axis, Frame, Lettering, Line, figure, series_key, wordings
from toolkit.report.page.scales import padded
from toolkit.report.page.units import clock, plain, prefixed
from toolkit.report.quality import lower_is_better, quality

_HEIGHT = 300


class Point(msgspec.Struct, frozen=True):
    """A case, its latency in nanoseconds, and what it is weighed against."""

    case: CaseRecord
    latency: float
    value: float


def tradeoffs(context: Context) -> Iterator[str]:
    """Up to two charts per family; none where there is nothing to choose: one point, or one value for all."""
    found = [family for family in context.families if family.comparable]
    charts = [chart for family in found for chart in (*_accuracy(context, family), *_size(context, family))]
    if charts:
        yield f'<div class="charts">{"".join(charts)}</div>'


def front(points: Sequence[Point], lower: bool) -> list[Point]:
    """Those that no other beats in latency and value together, the fastest first; ``lower`` values are better ones."""
    sign = 1 if lower else -1
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency, sign * p.value)):
        if not found or sign * point.value < sign * found[-1].value:
            found.append(point)
    return found


def _accuracy(context: Context, family: Family) -> Iterator[str]:
    metrics = dict.fromkeys(case.accuracy.metric for case in family.cases if case.accuracy is not None)
    for metric in metrics:
        points = [
            Point(case, _p50(case), case.accuracy.value)
            for case in family.cases
            if case.accuracy is not None and case.accuracy.metric == metric
        ]
        if len({point.value for point in points}) > 1:
            lower = lower_is_better(metric)
            title = f"{metric.replace('_', ' ')}, {'lower' if lower else 'higher'} is better"
            yield _figure(
                context, family, points, f"Latency against {metric.replace('_', ' ')}", title, lower, _plain_axis
            )


def _size(context: Context, family: Family) -> Iterator[str]:
    points = [Point(case, _p50(case), case.size_bytes) for case in family.cases if case.size_bytes]
    if len({point.value for point in points}) > 1:
        yield _figure(
            context, family, points, "Latency against size", "size of the files, smaller is better", True, _bytes_axis
        )


def _p50(case: CaseRecord) -> float:
    assert case.latency_ns is not None and case.latency_ns.p50 is not None, "measured cases have a median"
    return case.latency_ns.p50


def _plain_axis(title: str, points: Sequence[Point]) -> Axis:
    ends = [point.value for point in points]
    ends += [end for point in points if point.case.accuracy for end in point.case.accuracy.interval or ()]
    return Axis(title, *padded(ends, 0.08, logarithmic=False), plain, logarithmic=False)


def _bytes_axis(title: str, points: Sequence[Point]) -> Axis:
    return Axis(title, *padded([point.value for point in points], 0.12), lambda value: prefixed(value, "B"))


def _figure(
    context: Context, family: Family, points: Sequence[Point], caption: str, title: str, lower: bool,
    axis: Callable[[str, Sequence[Point]], Axis],
) -> str:  # fmt: skip
    best = front(points, lower)
    ends = [end for p in points for end in (p.latency, *((p.case.latency_ns and p.case.latency_ns.p50_ci) or ()))]
    x = Axis("median latency, logarithmic", *padded(ends, 0.12), clock)
    y = axis(title, points)
    told = f"{caption}; not beaten in both: " + ", ".join(context.label(point.case, family) for point in best)
    entries = [(context.series(p.case), f"{context.told(p.case, family)}: {escape(_told(p))}") for p in points]
    key = "Filled and joined: not beaten in both by any other (Pareto front)." + series_key(entries)
    named = f"{caption}: {escape(family.title)}"
    return figure(lambda width: _chart(context, family, points, best, x, y, width, told), named, key)


def _chart(
    context: Context, family: Family, points: Sequence[Point], best: Sequence[Point], x: Axis, y: Axis, width: int,
    told: str,
) -> str:  # fmt: skip
    frame = Frame(width, _HEIGHT, x, y)
    places = {point.case.id: (frame.x(point.latency), frame.y(point.value)) for point in points}
    stairs = _stairs([places[point.case.id] for point in best])
    whiskers = [ends for point in points for ends in _whiskers(frame, point)]
    lettering = Lettering(frame, list(places.values()), radius=7, lines=[*itertools.pairwise(stairs), *whiskers])
    marks = [svg.path(stairs, "front")] if len(best) > 1 else []
    marks += [svg.line(*start, *end, "whisker") for start, end in whiskers]
    for point in points:
        place = places[point.case.id]
        words = f"{context.label(point.case, family)}: {_told(point)}"
        marks.append(svg.mark(context.series(point.case), *place, radius=6, told=words, hollow=point not in best))
    for point in points:
        number, name = context.numbers[point.case.id], family.words[point.case.id]
        marks.append(lettering.beside(*places[point.case.id], wordings(number, name)))
    return frame.drawn(marks, told)


def _stairs(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """From front point to front point: on until the next one starts to win, then over to it."""
    corners = [places[0]]
    for x, y in places[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _whiskers(frame: Frame, point: Point) -> Iterator[Line]:
    x, y = frame.x(point.latency), frame.y(point.value)
    latency, accuracy = point.case.latency_ns, point.case.accuracy
    if latency is not None and latency.p50_ci is not None:
        low, high = map(frame.x, latency.p50_ci)
        yield (low, y), (high, y)
    if accuracy is not None and accuracy.interval is not None and accuracy.value == point.value:
        low, high = (frame.y(end) for end in accuracy.interval)
        yield (x, low), (x, high)


def _told(point: Point) -> str:
    case = point.case
    latency = case.latency_ns
    time = duration(point.latency) if latency is None else duration_with_interval(point.latency, latency.p50_ci)
    if case.accuracy is not None and case.accuracy.value == point.value:
        return f"{time}, {quality(case.accuracy)}"
    return f"{time}, {size(case.size_bytes)}"
