"""Roofline: what operators achieve against what this machine can do at their arithmetic intensity.

Source: Williams, Waterman and Patterson, Roofline (CACM 52, 2009). Peaks were measured in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice

import msgspec

from toolkit.profiler.records import CaseRecord, OperatorRecord, PeakRecord
from toolkit.report.kinds import KINDS, kind
from toolkit.report.numbers import digits, duration
from toolkit.report.page import svg
from toolkit.report.page.context import Context
from toolkit.report.page.frame import Axis, Frame, Lettering, figure, series_key
from toolkit.report.page.scales import BOLD, padded
from toolkit.report.page.units import plain, prefixed

_HEIGHT = 320
_LABELLED = 6
_WORTH_A_LABEL = 0.01


class Dot(msgspec.Struct, frozen=True):
    """One operator: operations per byte, and per second."""

    record: OperatorRecord
    intensity: float
    rate: float


class Slope(msgspec.Struct, frozen=True):
    """A bandwidth and what it is of."""

    name: str
    bytes_per_s: float

    @property
    def class_(self) -> str:
        return "roof" if self.name == _MEMORY else "roof cached"


_MEMORY = "memory"
# Reads alone are the faster pass on most machines, so they bound what can be seen.
_SLOPES = {
    _MEMORY: ("bytes_per_s", "read_bytes_per_s"),
    "caches (dashed)": ("cached_bytes_per_s", "cached_read_bytes_per_s"),
}


def _slope(name: str, roofs: Sequence[PeakRecord], fields: Sequence[str]) -> Slope:
    return Slope(name, max(float(getattr(peak, field, None) or 0) for peak in roofs for field in fields))


def rooflines(context: Context) -> Iterator[str]:
    """One chart per case with operators whose target's peaks are known."""
    figures = []
    for case in context.report.measured:
        roofs = [peak for peak in context.report.peaks if peak.target == case.target and peak.flops_per_s]
        found = dots(case)
        if roofs and found:
            figures.append(_figure(context, case, _used(roofs, found), found))
    if figures:
        yield f'<div class="charts">{"".join(figures)}</div>'


def dots(case: CaseRecord) -> list[Dot]:
    """Operators with counted work, the slowest first."""
    records = case.operators.operators if case.operators is not None else []
    return [
        Dot(record, record.flops / record.bytes, record.flops / record.time_ns * 1e9)
        for record in records
        if record.flops and record.bytes and record.time_ns > 0
    ]


def _used(roofs: Sequence[PeakRecord], found: Sequence[Dot]) -> list[PeakRecord]:
    """The peaks of the precisions that ran, all where none of them is known, the highest first."""
    ran = {dot.record.precision for dot in found}
    fitting = [peak for peak in roofs if peak.precision in ran] or list(roofs)
    return sorted(fitting, key=lambda peak: -(peak.flops_per_s or 0))


def _figure(context: Context, case: CaseRecord, roofs: Sequence[PeakRecord], found: Sequence[Dot]) -> str:
    slopes = [slope for name, fields in _SLOPES.items() if (slope := _slope(name, roofs, fields)).bytes_per_s]
    tops = [rate for peak in roofs for rate in (peak.flops_per_s or 0, peak.conv_flops_per_s or 0) if rate]
    intensities = [dot.intensity for dot in found] + [top / slopes[0].bytes_per_s for top in tops if slopes]
    x = Axis("operations per byte, logarithmic", *padded(intensities, 0.1), plain)
    y = Axis("operations per second, logarithmic", *padded([*tops, *(dot.rate for dot in found)], 0.1), _rate)
    words = "; ".join(map(_peak_words, roofs))
    memory = "".join(f"; {slope.name} {prefixed(_rounded(slope.bytes_per_s), 'B/s')}" for slope in slopes)
    told = f"Roofline of {context.label(case)}: peaks {words}{memory}; {len(found)} operators"
    seen = {kind(dot.record) for dot in found}
    entries = [(number, name) for number, name in enumerate(KINDS) if name in seen]
    key = f"Measured peaks: {escape(words + memory)}. Larger marks: more of the time.{series_key(entries)}"
    return figure(lambda width: _chart(roofs, slopes, found, x, y, width, told), context.told(case), key)


def _peak_words(peak: PeakRecord) -> str:
    convolution = peak.conv_flops_per_s
    more = f", convolutions (dashed) {prefixed(_rounded(convolution), 'OP/s')}" if convolution else ""
    return f"{peak.precision} {prefixed(_rounded(peak.flops_per_s or 0), 'OP/s')}{more}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _rate(value: float) -> str:
    return prefixed(value, "")


def _chart(
    roofs: Sequence[PeakRecord], slopes: Sequence[Slope], found: Sequence[Dot], x: Axis, y: Axis, width: int, told: str
) -> str:
    frame = Frame(width, _HEIGHT, x, y)
    marks = [part for peak in roofs for part in _roof(frame, peak, slopes)]
    places = [(frame.x(dot.intensity), frame.y(dot.rate)) for dot in found]
    flat = [((frame.left, frame.y(top)), (frame.right, frame.y(top))) for peak in roofs if (top := peak.flops_per_s)]
    lettering = Lettering(frame, places, radius=7, lines=flat)
    for peak in roofs:
        lettering.reserve(frame.x.end - 2, frame.y(peak.flops_per_s or 0) - 5, _roof_name(peak), "end")
    for dot, place in reversed(list(zip(found, places, strict=True))):
        radius = 3.0 + 9.0 * min(1.0, dot.record.share) ** 0.5
        marks.append(svg.mark(KINDS.index(kind(dot.record)), *place, radius=radius, told=_told(dot)))
    written = (lettering.beside(*place, _wordings(dot)) for dot, place in zip(found, places, strict=True))
    return frame.drawn([*marks, *islice(filter(None, written), _LABELLED)], told)


def _wordings(dot: Dot) -> list[str]:
    return [f"{dot.record.operator} {dot.record.share:.0%}"] if dot.record.share >= _WORTH_A_LABEL else []


def _roof(frame: Frame, peak: PeakRecord, slopes: Sequence[Slope]) -> Iterator[str]:
    """The slopes of memory and caches up to their ridges, then the flat roof, with its name on top."""
    top = peak.flops_per_s or 0
    ridges = [min(max(top / slope.bytes_per_s, frame.x.low), frame.x.high) for slope in slopes] or [frame.x.low]
    for slope, ridge in zip(slopes, ridges, strict=False):
        start = min(max(frame.x.low, frame.y.low / slope.bytes_per_s), ridge)
        ends = [(frame.x(start), frame.y(start * slope.bytes_per_s)), (frame.x(ridge), frame.y(top))]
        if ridge > frame.x.low:
            yield svg.path(ends, slope.class_)
    yield svg.path([(frame.x(min(ridges)), frame.y(top)), (frame.x.end, frame.y(top))], "roof")
    if convolution := peak.conv_flops_per_s:
        level = frame.y(convolution)
        yield svg.path([(frame.x(min(ridges)), level), (frame.x.end, level)], "roof cached")
    name = _roof_name(peak)
    if frame.x.end - frame.x(min(ridges)) > len(name) * BOLD:
        yield svg.text(name, frame.x.end - 2, frame.y(top) - 5, "end", "label")


def _roof_name(peak: PeakRecord) -> str:
    return f"{peak.precision} {prefixed(_rounded(peak.flops_per_s or 0), '')}"


def _told(dot: Dot) -> str:
    record = dot.record
    of_peak = "" if record.of_peak is None else f", {record.of_peak:.0%} of attainable"
    names = ", ".join(record.nodes[:3]) or record.name
    return (
        f"{record.operator} ({names}): {duration(record.time_ns)}, {record.share:.1%} of the latency, "
        f"{prefixed(_rounded(dot.rate), 'OP/s')} at {digits(dot.intensity)} operations per byte{of_peak}"
    )
