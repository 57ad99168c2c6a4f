"""Latency bars as inline SVG: median, interval, ticks at p90 and p99. No text inside, so they stretch to any width."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.profiler.records import CaseRecord

_WIDTH, _HEIGHT = 1000, 16


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
