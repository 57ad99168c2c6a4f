"""Sweeps: how latency grows with batch, sequence length, threads or width, on two logarithmic axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import msgspec

from toolkit.profiler.records import CaseRecord, SweepRecord
from toolkit.report.numbers import duration, duration_with_interval
from toolkit.report.page import svg
from toolkit.report.page.context import Context
from toolkit.report.page.frame import Axis, Frame, figure, series_key
from toolkit.report.page.scales import padded
from toolkit.report.page.units import clock, plain

_HEIGHT = 300


class Point(msgspec.Struct, frozen=True):
    """Time in nanoseconds at one value of the variable."""

    value: float
    time: float
    interval: tuple[float, float] | None = None


class Curve(msgspec.Struct, frozen=True):
    """One sweep's measured points, by value of the variable."""

    sweep: SweepRecord
    series: int
    points: tuple[Point, ...]


def curves(context: Context) -> Iterator[str]:
    """One chart per model and variable, a curve per target."""
    charts: dict[tuple[str, str], list[Curve]] = {}
    for sweep in context.report.sweeps:
        found = _curve(context, sweep)
        if len(found.points) > 1:
            charts.setdefault((sweep.model, sweep.variable), []).append(found)
    if charts:
        figures = (_figure(model, variable, found) for (model, variable), found in charts.items())
        yield f'<div class="charts">{"".join(figures)}</div>'


def _curve(context: Context, sweep: SweepRecord) -> Curve:
    cases = {case.id: case for case in context.report.measured}
    points = [_point(value, cases[name]) for value, name in sweep.points if name in cases]
    return Curve(sweep, context.targets.get(sweep.target, 0), tuple(sorted(points, key=lambda point: point.value)))


def _point(value: float, case: CaseRecord) -> Point:
    """The median of a call; offline, where batches differ, the time per sample."""
    if case.scenario == "offline" and case.throughput_per_s:
        return Point(value, 1e9 / case.throughput_per_s)
    assert case.latency_ns is not None and case.latency_ns.p50 is not None, "measured cases have a median"
    return Point(value, case.latency_ns.p50, case.latency_ns.p50_ci)


def growth(sweep: SweepRecord) -> str:
    """``time ∝ batch^0.93 [0.91, 0.95]``; "" where no exponent was fitted."""
    if sweep.exponent is None:
        return ""
    bounds = "" if sweep.exponent_ci is None else f" [{sweep.exponent_ci[0]:.2f}, {sweep.exponent_ci[1]:.2f}]"
    return f"time ∝ {sweep.variable}^{sweep.exponent:.2f}{bounds}"


def _figure(model: str, variable: str, found: Sequence[Curve]) -> str:
    caption = f"{escape(model)}: latency over {escape(variable)}"
    values = sorted({point.value for curve in found for point in curve.points})
    ends = [end for curve in found for point in curve.points for end in (point.time, *(point.interval or ()))]
    x = Axis(f"{variable}, logarithmic", *padded(values, 0.05), plain, at=tuple(values))
    y = Axis("median latency, logarithmic", *padded(ends, 0.08), clock)
    told = f"Latency of {model} over {variable}. " + "; ".join(map(_told, found))
    key = "Bars: 99 % intervals. Dashed: proportional growth, from the first point." + series_key(
        (curve.series, escape(_told(curve))) for curve in found
    )
    return figure(lambda width: _chart(found, x, y, width, told), caption, key)


def _told(curve: Curve) -> str:
    first, last = curve.points[0], curve.points[-1]
    span = f"{duration(first.time)} at {plain(first.value)}, {duration(last.time)} at {plain(last.value)}"
    return "; ".join(
        part for part in (f"{curve.sweep.target}: {span}", growth(curve.sweep), *curve.sweep.notes) if part
    )


def _chart(found: Sequence[Curve], x: Axis, y: Axis, width: int, told: str) -> str:
    frame = Frame(width, _HEIGHT, x, y)
    return frame.drawn([mark for curve in found for mark in _marks(frame, curve)], told)


def _marks(frame: Frame, curve: Curve) -> Iterator[str]:
    series = f"s{curve.series % len(svg.SHAPES)}"
    yield _proportional(frame, curve, series)
    places = [(frame.x(point.value), frame.y(point.time)) for point in curve.points]
    yield svg.path(places, f"curve {series}")
    for point, (x, y) in zip(curve.points, places, strict=True):
        if point.interval is not None:
            low, high = map(frame.y, point.interval)
            yield svg.line(x, low, x, high, f"whisker {series}")
        at = f"{curve.sweep.target}, {curve.sweep.variable} {plain(point.value)}"
        yield svg.mark(curve.series, x, y, told=f"{at}: {duration_with_interval(point.time, point.interval)}")


def _proportional(frame: Frame, curve: Curve, series: str) -> str:
    """From the first point on with slope 1, as far as the frame goes."""
    first = curve.points[0]
    factor = min(curve.points[-1].value / first.value, frame.y.high / first.time)
    end = (frame.x(first.value * factor), frame.y(first.time * factor))
    return svg.line(frame.x(first.value), frame.y(first.time), *end, f"proportional {series}")
