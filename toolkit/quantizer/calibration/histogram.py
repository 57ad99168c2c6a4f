"""A histogram that grows with the stream it watches, in memory that does not.

Bins are as wide as a power of two and aligned to zero, so two of them merge exactly into one of twice the width. The
final width depends on the smallest and the largest value only, and counts are integers: the order of the values, and
how they were split into batches, leave no trace.
"""

from __future__ import annotations

import math
from typing import final

import msgspec
import numpy as np
import numpy.typing as npt

from toolkit.tensors import Array

BINS = 2048
# Values whose magnitude is below 2^-100 share a bin: narrower ones would leave float32's range.
_FINEST = -100
# A float32 has 24 significant bits: narrower bins than this could not be told apart.
_SIGNIFICANT = 23

Counts = npt.NDArray[np.int64]


class Distribution(msgspec.Struct, frozen=True):
    """What was seen of one tensor.

    Attributes:
        lowest, highest: the exact extremes of the finite values; 0 where there were none.
        exponent: bins are 2^exponent wide.
        first: number of the first bin; bin n covers [n, n + 1) times the width.
        counts: ``(bins,) int64``, values per bin.
        values: finite values that the extremes were taken over.
        nonfinite: NaN and infinities that were left out.
    """

    lowest: float = 0.0
    highest: float = 0.0
    exponent: int = _FINEST
    first: int = 0
    counts: Counts = msgspec.field(default_factory=lambda: np.zeros(0, np.int64))
    values: int = 0
    nonfinite: int = 0

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self.exponent)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Middle of each bin; the outermost ones do not reach beyond the extremes."""
        centres = (self.first + np.arange(len(self.counts)) + 0.5) * self.width
        return np.clip(centres, self.lowest, self.highest)

    def share_within(self, bound: float) -> float:
        """Part of the counted values that lie between ``-bound`` and ``bound``, to within a bin on each side.

        Where no value is negative, those of the first bin do not count: behind a Relu most of them are zeros.
        """
        counts = self.counts.copy()
        if self.lowest == 0.0 and self.first == 0:
            counts[:1] = 0
        inside = np.abs(self.centres) <= bound
        return float(counts[inside].sum() / max(1, counts.sum()))


@final
class StreamingHistogram:
    """Collects a :class:`Distribution` of at most ``bins`` bins.

    Args:
        bins: how many at most.
        values_per_sample: of larger samples a regular part of about this many values is counted; the extremes are
            always exact. 0 counts everything.
    """

    def __init__(self, bins: int = BINS, values_per_sample: int = 0) -> None:
        self._bins, self._values_per_sample = bins, values_per_sample
        self._lowest, self._highest = math.inf, -math.inf
        self._exponent, self._first = _FINEST, 0
        self._counts: Counts = np.zeros(0, np.int64)
        self._values = self._nonfinite = 0

    def update(self, array: Array, samples: int = 1) -> None:
        """Add the values of ``array``, whose leading axis holds ``samples`` samples where its size allows it."""
        flat = _as_floats(array)
        if flat.size == 0:
            return
        shape = array.shape
        lowest, highest = float(flat.min()), float(flat.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            flat, shape = self._finite_part(flat), ()
            if flat.size == 0:
                return
            lowest, highest = float(flat.min()), float(flat.max())
        self._values += flat.size
        self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
        self._coarsen(needed_exponent(self._lowest, self._highest, self._bins))
        self._count(_part(flat, shape, samples, self._values_per_sample))

    def _finite_part(self, flat: Array) -> Array:
        finite = flat[np.isfinite(flat)]
        self._nonfinite += flat.size - finite.size
        return finite

    def _coarsen(self, exponent: int) -> None:
        shift = exponent - self._exponent
        if shift <= 0:
            return
        if self._counts.size:
            numbers = (self._first + np.arange(len(self._counts))) >> min(shift, 62)
            self._first, self._counts = int(numbers[0]), _summed(numbers - numbers[0], self._counts)
        self._exponent = exponent

    def _count(self, flat: Array) -> None:
        """Add ``flat`` to the counts at the present width."""
        numbers = np.floor(flat * flat.dtype.type(math.ldexp(1.0, -self._exponent))).astype(np.int64)
        # Tiny negative numbers vanish in the product, yet they lie in the bin below zero.
        numbers[(flat < 0) & (numbers == 0)] = -1
        first = int(numbers.min())
        counts = np.bincount(numbers - first)
        low = min(first, self._first) if self._counts.size else first
        high = max(first + len(counts), self._first + len(self._counts)) if self._counts.size else first + len(counts)
        merged = np.zeros(high - low, np.int64)
        merged[self._first - low : self._first - low + len(self._counts)] += self._counts
        merged[first - low : first - low + len(counts)] += counts
        self._first, self._counts = low, merged

    def distribution(self) -> Distribution:
        """What was seen so far."""
        if not self._values:
            return Distribution(nonfinite=self._nonfinite)
        return Distribution(
            lowest=self._lowest,
            highest=self._highest,
            exponent=self._exponent,
            first=self._first,
            counts=self._counts.copy(),
            values=self._values,
            nonfinite=self._nonfinite,
        )


def needed_exponent(lowest: float, highest: float, bins: int) -> int:
    """The smallest exponent whose bins cover [lowest, highest] with at most ``bins`` of them."""
    largest = max(abs(lowest), abs(highest))
    if largest == 0.0:
        return _FINEST
    span = highest - lowest
    exponent = max(_FINEST, math.frexp(largest)[1] - _SIGNIFICANT, math.frexp(span / bins)[1] - 1 if span else _FINEST)
    while math.floor(math.ldexp(highest, -exponent)) - math.floor(math.ldexp(lowest, -exponent)) >= bins:
        exponent += 1
    return exponent


def _as_floats(array: Array) -> Array:
    """``array`` flat, as float32 or float64: halves and integers are computed with as float32."""
    return array.reshape(-1) if array.dtype.name in ("float32", "float64") else array.reshape(-1).astype(np.float32)


def _part(flat: Array, shape: tuple[int, ...], samples: int, wanted: int) -> Array:
    """About ``wanted`` values of each sample, a regular part that is the same however samples are batched.

    Where samples do not lie one after the other (time-major tensors), all values are taken.
    """
    if not wanted or samples < 1 or not shape or shape[0] % samples or flat.size // samples <= wanted:
        return flat
    rows = flat.reshape(samples, -1)
    return rows[:, :: _stride(rows.shape[1], wanted)].reshape(-1)


def _stride(size: int, wanted: int) -> int:
    """The first number from ``size / wanted`` on that has no factor in common with ``size``: a stride that divided a
    row's length would look at the same columns of an image again and again."""
    stride = size // wanted
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride


def _summed(numbers: npt.NDArray[np.int64], counts: Counts) -> Counts:
    """Sum of ``counts`` per number; numbers ascend from 0 and leave none out."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return np.add.reduceat(counts, starts)
