"""From values to positions, and which values an axis names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import msgspec

CHARACTER = 6.9
"""Width of one at the 12 units that charts are lettered in: an average of common sans-serif fonts, rounded up."""
BOLD = 7.7
"""The same for bold letters."""
_STEPS = ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))


class Scale(msgspec.Struct, frozen=True):
    """Maps ``low``…``high`` to ``start``…``end`` (pixels, either way round), by logarithm unless said otherwise."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = True

    def __call__(self, value: float) -> float:
        low, high = self._warped(self.low), self._warped(self.high)
        return self.start + (self._warped(value) - low) / (high - low) * (self.end - self.start)

    def _warped(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self, name: Callable[[float], str], spacing: float | None = None) -> list[float]:
        """Round values whose names do not run into each other: ``spacing`` apart, or as wide as the names are."""
        for candidates in (*self._round(), *self._linear()):
            if len(candidates) > 1 and self.apart(candidates, name, spacing):
                return candidates
        return [value for value in (self.low, self.high) if value > 0 or not self.logarithmic]

    def _round(self) -> list[list[float]]:
        if not self.logarithmic:
            return []
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        levels = [[step * 10.0**power for power in range(first, last + 1) for step in steps] for steps in _STEPS]
        levels += [[10.0**power for power in range(first, last + 1) if power % every == 0] for every in (2, 3)]
        return [found for level in levels if len(found := [v for v in level if self.low <= v <= self.high]) > 2]

    def _linear(self) -> list[list[float]]:
        span = self.high - self.low
        found = []
        for parts in (8, 6, 5, 4, 3, 2):
            rough = span / parts
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
            first = math.ceil(self.low / step - 1e-9)
            values = [index * step for index in range(first, first + parts + 2)]
            found.append([value for value in values if value <= self.high * (1 + 1e-12) and self._shows(value)])
        return found

    def _shows(self, value: float) -> bool:
        return value > 0 or not self.logarithmic

    def apart(self, values: Sequence[float], name: Callable[[float], str], spacing: float | None = None) -> bool:
        """Whether the names of ``values`` have room beside each other."""
        places = [self(value) for value in values]
        needed = [spacing or (len(name(a)) + len(name(b))) / 2 * CHARACTER + 8 for a, b in itertools.pairwise(values)]
        return all(abs(b - a) >= room for a, b, room in zip(places, places[1:], needed, strict=False))


def padded(values: Sequence[float], share: float, logarithmic: bool = True) -> tuple[float, float]:
    """The smallest and the largest of ``values`` with ``share`` of their distance around them, at least a little."""
    low, high = min(values), max(values)
    if logarithmic:
        factor = max((high / low) ** share, 1.05)
        return low / factor, high * factor
    room = max((high - low) * share, abs(high) * 1e-3, 1e-12)
    return low - room, high + room
