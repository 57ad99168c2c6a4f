"""Percentiles: against scipy, against brute force, and by simulating what the intervals promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from toolkit.profiler.statistics import (
    CONFIDENCE,
    binomial_cdf,
    effective_count,
    needed_samples,
    percentile,
)


@pytest.mark.parametrize(("share", "needed"), [(0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)])
def test_early_stopping_needs_what_mlperf_needs(share: float, needed: int) -> None:
    assert needed_samples(share) == needed
    # By the rule's own words: with one sample above the percentile still unlikely, and one sample fewer not yet.
    assert stats.binom.cdf(1, needed, 1 - share) <= 1 - CONFIDENCE < stats.binom.cdf(1, needed - 1, 1 - share)


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (17, 0.9), (1000, 0.99), (20_000, 0.5)])
def test_binomial_agrees_with_scipy(count: int, share: float) -> None:
    ours = binomial_cdf(count, share)
    assert np.allclose(ours, stats.binom.cdf(np.arange(count + 1), count, share), rtol=1e-9, atol=1e-12)


def test_the_median_interval_is_the_narrowest_that_brute_force_allows() -> None:
    count = 12
    half_error = (1 - CONFIDENCE) / 2
    probability = stats.binom.pmf(np.arange(count + 1), count, 0.5)
    # All 2^12 ways in which samples can lie on the two sides of the median.
    below = np.array([sum(sides) for sides in itertools.product((0, 1), repeat=count)])
    assert np.allclose(np.bincount(below) / 2**count, probability)
    low = max(rank for rank in range(1, count) if np.mean(below < rank) <= half_error)
    high = min(rank for rank in range(1, count + 1) if np.mean(below >= rank) <= half_error)
    found = percentile([np.arange(1, count + 1)], 0.5)
    assert (found.value, found.interval) == (6, (low, high))


@pytest.mark.parametrize(("count", "has_interval"), [(1, False), (7, False), (8, True)])
def test_a_median_has_an_interval_from_eight_samples_on(count: int, has_interval: bool) -> None:
    found = percentile([np.arange(count) + 100], 0.5)
    assert found.value is not None
    assert (found.interval is not None) == has_interval


def test_tails_are_withheld_with_the_number_that_is_missing() -> None:
    found = percentile([np.arange(600)], 0.99)
    assert (found.value, found.interval, found.withheld) == (None, None, "600 samples, 62 more are needed")
    assert percentile([np.arange(662)], 0.99).value == 655


def test_no_samples_is_said() -> None:
    assert percentile([np.array([], dtype=np.int64)], 0.5).withheld == "no samples"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_intervals_of_independent_samples_cover_what_they_promise(share: float) -> None:
    """600 lognormal series, each cut into blocks as the profiler would: 99 % intervals miss about 6, never 15."""
    generator = np.random.default_rng(1)
    truth = float(np.exp(0.3 * stats.norm.ppf(share)) * 1e6)
    missed = 0
    for _ in range(600):
        samples = (generator.lognormal(0, 0.3, 1000) * 1e6).astype(np.int64)
        low, high = percentile(np.split(samples, 20), share).interval or (0, 0)
        missed += not low <= truth <= high
    assert missed < 15


def test_intervals_of_samples_that_come_in_blocks_still_cover() -> None:
    """Blocks shift as a whole by 5 %, their calls scatter by 1 %: taken for independent, most intervals would miss."""
    generator = np.random.default_rng(2)
    missed = naive_missed = 0
    for _ in range(300):
        blocks = [
            (1e6 * np.exp(0.05 * generator.standard_normal() + 0.01 * generator.standard_normal(50))).astype(np.int64)
            for _ in range(40)
        ]
        low, high = percentile(blocks, 0.5).interval or (0, 0)
        missed += not low <= 1e6 <= high
        low, high = percentile([np.concatenate(blocks)], 0.5).interval or (0, 0)
        naive_missed += not low <= 1e6 <= high
    assert missed < 15
    assert naive_missed > 150


def test_independent_samples_are_worth_their_number() -> None:
    generator = np.random.default_rng(3)
    blocks = np.split(generator.permutation(10_000), 100)
    worth = effective_count(blocks, 0.5, 4999)
    assert 6000 < worth <= 10_000


def test_samples_that_repeat_within_a_block_are_worth_the_number_of_blocks() -> None:
    blocks = [np.full(50, value) for value in range(40)]
    assert effective_count(blocks, 0.5, 19) == pytest.approx(40, abs=2)
