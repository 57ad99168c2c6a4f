"""Each doubt is raised by what it is about, and a quiet series raises none."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.profiler.doubts import Series, doubts
from toolkit.profiler.statistics import Samples, percentile

BLOCKS, CALLS = 60, 40


def series(blocks: list[Samples], processes: int = 1) -> Series:
    owners = tuple(index * processes // len(blocks) for index in range(len(blocks)))
    return Series(tuple(blocks), owners, percentile(blocks, 0.5))


def quiet(generator: np.random.Generator, level_ns: float = 1e6, blocks: int = BLOCKS) -> list[Samples]:
    """Latencies as they are on an idle machine: skewed to the right, alike from block to block."""
    return [(level_ns * generator.lognormal(0, 0.02, CALLS)).astype(np.int64) for _ in range(blocks)]


@pytest.mark.parametrize("seed", range(20))
def test_a_quiet_series_raises_no_doubt(seed: int) -> None:
    assert doubts(series(quiet(np.random.default_rng(seed)), processes=3)) == ()


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2])
def test_a_wide_series_with_one_hump_is_not_called_bimodal(sigma: float) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        blocks = [(1e6 * generator.lognormal(0, sigma, CALLS)).astype(np.int64) for _ in range(BLOCKS)]
        assert not any("modes" in text for text in doubts(series(blocks)))


def test_no_samples_raise_no_doubt() -> None:
    assert doubts(Series((), (), percentile([np.array([], dtype=np.int64)], 0.5))) == ()


def test_few_samples() -> None:
    assert "very few samples" in " ".join(doubts(series([np.full(5, 1_000_000)])))


def test_too_short_for_the_clock() -> None:
    assert any("too short for this clock" in text for text in doubts(series([np.full(100, 30)])))


def test_drift() -> None:
    generator = np.random.default_rng(0)
    blocks = [block * (100 + index) // 100 for index, block in enumerate(quiet(generator, blocks=30))]
    assert any(text.startswith("drifted by +19%") for text in doubts(series(blocks)))


def test_processes_that_differ() -> None:
    generator = np.random.default_rng(0)
    blocks = quiet(generator, 1e6, 20) + quiet(generator, 1.2e6, 20)
    found = doubts(series(blocks, processes=2))
    assert any("slowest of its 2 processes took 2" in text for text in found)


def test_two_modes_with_their_shares() -> None:
    generator = np.random.default_rng(0)
    fast, slow = quiet(generator, 1e6), quiet(generator, 1.5e6)
    mixed = [np.where(generator.random(CALLS) < 0.3, b, a) for a, b in zip(fast, slow, strict=True)]
    found = next(text for text in doubts(series(mixed)) if "modes" in text)
    assert "about 999 µs" in found or "about 1 ms" in found
    assert "about 1.5 ms" in found
    assert found.startswith("two modes (7")


def test_slow_calls() -> None:
    generator = np.random.default_rng(0)
    blocks = [np.where(generator.random(CALLS) < 0.03, block * 10, block) for block in quiet(generator)]
    assert any("of calls took over twice the median" in text for text in doubts(series(blocks)))


def test_noise_that_leaves_the_median_unknown() -> None:
    generator = np.random.default_rng(0)
    blocks = [(np.full(CALLS, 1e6) * np.exp(generator.standard_normal() * 0.3)).astype(np.int64) for _ in range(20)]
    assert any(text.startswith("noisy") for text in doubts(series(blocks)))
