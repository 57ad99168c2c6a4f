"""Intervals as inline SVG for cells of tables. No text inside, so they stretch to any width.

Latency bars show the median, its interval and ticks at p90 and p99; ratio bars a dot and its interval about 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolkit.profiler.records import CaseRecord, ComparisonRecord

_WIDTH, _HEIGHT, _RATIO_WIDTH = 1000, 16, 170
_NARROWEST = 1.25
"""Factor around 1 that the axis of ratios spans at least, so that 1.002 does not look like a landslide."""


def scale_ns(cases: Sequence[CaseRecord]) -> float:
    """What the full width stands for. One wild p99 must not squeeze all else, so the axis ends a little past the
    largest
    of medians, interval ends and p90."""
    ends = [end for case in cases for end in _ends(case)]
    return 1.05 * max(ends, default=1)


def _ends(case: CaseRecord) -> list[int]:
    found = case.latency_ns
    if found is None:
        return []
    return [value for value in (found.p50, found.p90, *(found.p50_ci or ())) if value is not None]


def interval_bar(case: CaseRecord, scale: float) -> str:
    """The bar of one case; a p99 beyond the axis is left to the table."""
    found = case.latency_ns
    assert found is not None and found.p50 is not None, "only measured cases have a bar"
    shapes = [_box("median", 0, found.p50, scale, height=12)]
    if found.p50_ci is not None:
        shapes.append(_box("interval", found.p50_ci[0], found.p50_ci[1], scale, height=4))
    shapes += [_tick(value, scale) for value in (found.p90, found.p99) if value is not None and value <= scale]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{"".join(shapes)}</svg>'
    )


def _box(kind: str, low: float, high: float, scale: float, height: int) -> str:
    start, end = _x(low, scale), _x(high, scale)
    width, top = max(2.0, end - start), (_HEIGHT - height) // 2
    return f'<rect class="{kind}" x="{start:.1f}" y="{top}" width="{width:.1f}" height="{height}"/>'


def _tick(value: float, scale: float) -> str:
    return f'<rect class="tick" x="{_x(value, scale):.1f}" y="0" width="2" height="{_HEIGHT}"/>'


def _x(value: float, scale: float) -> float:
    return _WIDTH * value / scale


def ratio_span(comparisons: Sequence[ComparisonRecord]) -> tuple[float, float]:
    """Smallest and largest ratio of an axis that shows ``comparisons`` and 1."""
    ends = [end for item in comparisons for end in (item.ratio, *(item.ratio_ci or ()))]
    low, high = min([*ends, 1 / _NARROWEST]), max([*ends, _NARROWEST])
    return low / 1.03, high * 1.03


def ratio_bar(comparison: ComparisonRecord, span: tuple[float, float]) -> str:
    """The ratio's place on a logarithmic axis over ``span``."""
    low, high = map(math.log, span)

    def x(ratio: float) -> float:
        return 5 + (_RATIO_WIDTH - 10) * (math.log(ratio) - low) / (high - low)

    shapes = [f'<rect class="one" x="{x(1) - 0.5:.1f}" y="0" width="1" height="{_HEIGHT}"/>']
    if comparison.ratio_ci is not None:
        start, end = map(x, comparison.ratio_ci)
        shapes.append(f'<rect class="interval" x="{start:.1f}" y="7" width="{max(2.0, end - start):.1f}" height="2"/>')
    shapes.append(f'<circle class="interval" cx="{x(comparison.ratio):.1f}" cy="8" r="4"/>')
    size = f'viewBox="0 0 {_RATIO_WIDTH} {_HEIGHT}" width="{_RATIO_WIDTH}" height="{_HEIGHT}"'
    return f'<svg class="ratio" {size} aria-hidden="true">{"".join(shapes)}</svg>'
