"""Sweeps as text: a small plot in logarithmic axes per sweep, and its exponent in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from toolkit.profiler.records import ProfileReport, SweepRecord
from toolkit.report.columns import WIDTH, note, shortened
from toolkit.report.numbers import digits, duration

HEIGHT = 7
_PLOT = WIDTH - 16
_LABEL = 9
Point = tuple[float, float]


def sweep_lines(report: ProfileReport) -> Iterator[str]:
    """Every sweep of the report."""
    for sweep in report.sweeps:
        points = latencies(report, sweep)
        yield shortened(f"{sweep.model} on {sweep.target}: {title(sweep)}", WIDTH)
        if points:
            yield from plot(points)
        for text in sweep.notes:
            yield from note(text)
        yield ""


def title(sweep: SweepRecord) -> str:
    """What is drawn, and the exponent where there is one."""
    if sweep.exponent is None:
        return f"latency over {sweep.variable}"
    low, high = sweep.exponent_ci or (sweep.exponent, sweep.exponent)
    return f"latency grows as {sweep.variable}^{_signed(sweep.exponent)} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else ''}{digits(abs(value))}"


def latencies(report: ProfileReport, sweep: SweepRecord) -> list[Point]:
    """Value of the variable and median in nanoseconds of each point; offline the time per sample."""
    cases = {case.id: case for case in report.measured}
    found = []
    for value, name in sweep.points:
        case = cases.get(name)
        if case is None or case.latency_ns is None or case.latency_ns.p50 is None:
            continue
        offline = case.scenario == "offline" and case.throughput_per_s
        found.append((value, 1e9 / case.throughput_per_s if offline and case.throughput_per_s else case.latency_ns.p50))
    return sorted(found)


def plot(points: Sequence[Point]) -> list[str]:
    """``points`` in logarithmic axes, joined by dots, the values of the variable below."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    columns = [_place(x, xs, _PLOT - 1) for x in xs]
    rows = [HEIGHT - 1 - _place(y, ys, HEIGHT - 1) for y in ys]
    cells = [[" "] * _PLOT for _ in range(HEIGHT)]
    for (left, top), (right, bottom) in pairwise(zip(columns, rows, strict=True)):
        for column in range(left + 1, right):
            row = round(top + (bottom - top) * (column - left) / (right - left))
            cells[row][column] = "·"
    for column, row in zip(columns, rows, strict=True):
        cells[row][column] = "●"
    labels = {row: duration(y) for row, (_, y) in zip(rows, points, strict=True)}
    drawn = [
        f"  {labels.get(row, ''):>{_LABEL}} {'┤' if row in labels else '│'}{''.join(line).rstrip()}"
        for row, line in enumerate(cells)
    ]
    return [*drawn, f"  {'':>{_LABEL}} └{'─' * _PLOT}", f"  {'':>{_LABEL}}  {_axis(points, columns)}"]


def _place(value: float, values: Sequence[float], cells: int) -> int:
    low, high = min(values), max(values)
    return round((value - low) / (high - low) * cells) if high > low else 0


def _axis(points: Sequence[Point], columns: Sequence[int]) -> str:
    """The variable's values below their points; one that would touch its neighbour is left out."""
    text = ""
    for (value, _), column in zip(points, columns, strict=True):
        number = f"{value:g}"
        start = min(column, _PLOT - len(number))
        if not text or start > len(text):
            text = text.ljust(start) + number
    return text
