"""The frame of a chart: axes with names that do not overlap, and lettering of points that finds its own place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from toolkit.report.columns import shortened
from toolkit.report.page import svg
from toolkit.report.page.scales import BOLD, CHARACTER, Scale

NARROW, WIDE = 336, 620
"""Widths that charts are drawn for, a phone's and a screen's: letters are of one size on both."""
Named = Callable[[float], str]
Line = tuple[tuple[float, float], tuple[float, float]]
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 26, 42
_LETTER = 12
_APART = 5


class Axis(msgspec.Struct, frozen=True):
    """``low``…``high``, by logarithm unless said otherwise; ``at`` are the only values to be named, if given."""

    title: str
    low: float
    high: float
    name: Named
    logarithmic: bool = True
    at: tuple[float, ...] = ()


class Frame:
    """A chart of ``width`` × ``height`` with an axis below and one on the left, whose title stands above it."""

    def __init__(self, width: int, height: int, x: Axis, y: Axis) -> None:
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = _LEFT, width - _RIGHT, _TOP, height - _BOTTOM
        self._x, self._y = x, y
        self.x = Scale(x.low, x.high, self.left, self.right, x.logarithmic)
        self.y = Scale(y.low, y.high, self.bottom, self.top, y.logarithmic)

    def drawn(self, marks: Iterable[str], told: str) -> str:
        """The image: grid and names of the axes, ``marks`` on top."""
        return svg.chart(self.width, self.height, "".join([*self._below(), *self._beside(), *marks]), told)

    def _below(self) -> Iterable[str]:
        for value in _named(self.x, self._x, None):
            x = self.x(value)
            yield svg.line(x, self.top, x, self.bottom, "grid")
            name = self._x.name(value)
            room = len(name) * CHARACTER / 2
            yield svg.text(name, min(max(x, room), self.width - room), self.bottom + 16, "middle")
        yield svg.text(self._x.title, (self.left + self.right) / 2, self.height - 6, "middle", "title")

    def _beside(self) -> Iterable[str]:
        for value in _named(self.y, self._y, 24):
            y = self.y(value)
            yield svg.line(self.left, y, self.right, y, "grid")
            yield svg.text(self._y.name(value), self.left - 6, y + 4, "end")
        yield svg.text(self._y.title, 2, 13, class_="title")


def _named(scale: Scale, axis: Axis, spacing: float | None) -> list[float]:
    if not axis.at:
        return scale.ticks(axis.name, spacing)
    every = next((n for n in range(1, len(axis.at)) if scale.apart(axis.at[::n], axis.name, spacing)), len(axis.at))
    return list(axis.at[::every])


class Lettering:
    """Writes beside points where there is room: to the right, the left, above or below, else only the short form."""

    def __init__(
        self, frame: Frame, points: Sequence[tuple[float, float]], radius: float = 6, lines: Iterable[Line] = ()
    ) -> None:
        self._frame, self._radius = frame, radius
        self._taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
        for (x1, y1), (x2, y2) in lines:  # upright or level ones
            self._taken.append((min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1))

    def reserve(self, x: float, y: float, wording: str, anchor: str = "start") -> None:
        """Keep the place of a text that stands at ``(x, y)`` already."""
        width = len(wording) * BOLD
        left = x - width if anchor == "end" else x
        self._taken.append((left, y - _LETTER + 2, left + width, y + 3))

    def beside(self, x: float, y: float, wordings: Sequence[str]) -> str:
        """The first of ``wordings`` that fits somewhere near ``(x, y)``; "" where none does."""
        for wording in wordings:
            for anchor, left, base in self._places(x, y, len(wording) * BOLD):
                box = (left, base - _LETTER + 2, left + len(wording) * BOLD, base + 3)
                if self._free(box):
                    self._taken.append((box[0] - _APART, box[1], box[2] + _APART, box[3]))
                    start = {"start": left, "end": box[2], "middle": (left + box[2]) / 2}[anchor]
                    return svg.text(wording, start, base, anchor, "label")
        return ""

    def _places(self, x: float, y: float, width: float) -> list[tuple[str, float, float]]:
        gap = self._radius + 3
        return [
            ("start", x + gap, y + 4),
            ("end", x - gap - width, y + 4),
            ("middle", x - width / 2, y - gap),
            ("middle", x - width / 2, y + gap + 9),
            ("start", x + gap - 2, y - gap + 2),
            ("end", x - gap - width + 2, y - gap + 2),
            ("start", x + gap - 2, y + gap + 7),
            ("end", x - gap - width + 2, y + gap + 7),
            *(("end", x + 8 - width, y + gap + 9 + down) for down in (8, 22, 36)),
        ]

    def _free(self, box: tuple[float, float, float, float]) -> bool:
        frame = self._frame
        if box[0] < frame.left or box[2] > frame.width - 2 or box[1] < frame.top - 8 or box[3] > frame.bottom:
            return False
        return not any(
            box[0] < right and left < box[2] and box[1] < low and high < box[3]
            for left, high, right, low in self._taken
        )


def wordings(number: int, text: str) -> list[str]:
    """What may stand beside a case's point, the longest first."""
    return [f"{number} {text}", f"{number} {shortened(text, 16)}", f"{number}"]


def twice(draw: Callable[[int], str]) -> str:
    """What ``draw`` draws at both widths; the style sheet shows the one that fits."""
    narrow = svg.element("div", draw(NARROW), class_="narrow")
    return narrow + svg.element("div", draw(WIDE), class_="wide")


def figure(draw: Callable[[int], str], caption: str, key: str = "") -> str:
    """A chart with what it shows above it and how to read it (markup) below."""
    below = svg.element("div", key, class_="key") if key else ""
    return svg.element("figure", svg.element("figcaption", caption), twice(draw), below)


def series_key(entries: Iterable[tuple[int, str]]) -> str:
    """Which colour and shape stands for what; ``entries`` are series and markup."""
    items = "".join(
        svg.element(
            "li",
            svg.element("svg", svg.mark(series, 8, 8), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true"),
            svg.element("span", words),
        )
        for series, words in entries
    )
    return svg.element("ul", items, class_="series")
