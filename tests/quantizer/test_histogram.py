from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.quantizer.calibration.histogram import BINS, Distribution, StreamingHistogram, needed_exponent
from toolkit.tensors import Array


def seen(parts: list[Array], **settings: int) -> Distribution:
    histogram = StreamingHistogram(**settings)
    for part in parts:
        histogram.update(part, len(part))
    return histogram.distribution()


def same(left: Distribution, right: Distribution) -> bool:
    facts = [(d.lowest, d.highest, d.exponent, d.first, d.values, d.nonfinite) for d in (left, right)]
    return facts[0] == facts[1] and np.array_equal(left.counts, right.counts)


def rows(scale_jump: float = 1000.0) -> Array:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((48, 700)).astype(np.float32)
    values[20] *= scale_jump
    values[7] = 0
    return values


@pytest.mark.parametrize("parts", [2, 5, 48])
@pytest.mark.parametrize("per_sample", [0, 100])
def test_neither_batches_nor_order_leave_a_trace(parts: int, per_sample: int) -> None:
    whole = seen([rows()], values_per_sample=per_sample)
    assert same(whole, seen(np.array_split(rows(), parts), values_per_sample=per_sample))
    assert same(whole, seen(np.array_split(rows()[::-1], parts), values_per_sample=per_sample))


def test_counts_are_those_of_numpy_over_the_same_edges() -> None:
    found = seen(np.array_split(rows(), 7))
    edges = (found.first + np.arange(len(found.counts) + 1)) * found.width
    assert np.array_equal(found.counts, np.histogram(rows(), edges)[0])
    assert found.counts.sum() == found.values == rows().size
    assert (found.lowest, found.highest) == (rows().min(), rows().max())


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40), st.integers(1, 40)
)
@settings(max_examples=150, deadline=None)
def test_any_floats_in_any_split(values: list[float], cut: int) -> None:
    array = np.array(values, np.float32)[:, None]
    found = seen([array])
    assert len(found.counts) <= BINS
    assert found.counts.sum() == len(values)
    assert same(found, seen([part for part in (array[:cut], array[cut:]) if len(part)]))


def test_memory_does_not_grow_with_the_stream() -> None:
    histogram = StreamingHistogram()
    generator = np.random.default_rng(0)
    for step in range(60):
        histogram.update(generator.standard_normal(500).astype(np.float32) * np.float32(10.0) ** (step % 7 - 3))
    assert len(histogram.distribution().counts) <= BINS


def test_a_regular_part_of_large_samples_is_counted_and_extremes_stay_exact() -> None:
    values = rows()
    values[3, 699] = 5e4
    found = seen([values], values_per_sample=50)
    assert found.highest == np.float32(5e4)
    assert 48 * 35 <= found.counts.sum() <= 48 * 60
    assert found.values == values.size


def test_time_major_tensors_are_counted_whole() -> None:
    histogram = StreamingHistogram(values_per_sample=10)
    histogram.update(np.ones((7, 3, 50), np.float32), samples=3)
    assert histogram.distribution().counts.sum() == 7 * 3 * 50


def test_nan_and_infinity_are_counted_apart() -> None:
    found = seen([np.array([[1.0, np.nan, -2.0, np.inf, -np.inf]], np.float32)])
    assert (found.lowest, found.highest, found.values, found.nonfinite) == (-2.0, 1.0, 2, 3)
    nothing = seen([np.full((2, 2), np.nan, np.float32)])
    assert (nothing.values, nothing.nonfinite, nothing.counts.size) == (0, 4, 0)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5e-30, 3.4e38, -3.4e38, 1e-45])
def test_a_constant_takes_one_bin(value: float) -> None:
    found = seen([np.full((3, 4), value, np.float32)])
    assert len(found.counts) == 1
    assert found.counts[0] == 12
    assert found.lowest == found.highest == np.float32(value)


def test_halves_and_integers_are_taken() -> None:
    assert seen([np.arange(12, dtype=np.int64).reshape(3, 4)]).highest == 11
    assert seen([np.ones((2, 2), np.float16)]).highest == 1


def test_an_empty_array_changes_nothing() -> None:
    assert seen([np.zeros((0, 4), np.float32)]).values == 0


def test_the_exponent_is_the_smallest_that_fits() -> None:
    for low, high in ((0.0, 1.0), (-1.0, 3.0), (0.9, 1.1), (-1e-6, 1e6)):
        exponent = needed_exponent(low, high, BINS)
        span = math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) + 1
        assert span <= BINS
        assert span > BINS // 4
