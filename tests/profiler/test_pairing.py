"""Verdicts, tried on simulated machines whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.profiler.pairing import FEWEST_ROUNDS, paired_ratio


def rounds(
    generator: np.random.Generator, true_ratio: float, *, processes: int = 3, count: int = 60, process_sd: float = 0.003
) -> dict[int, list[float]]:
    """Log ratios as a noisy machine gives them: rounds that resemble their neighbours, and luck per process."""
    found = {}
    for process in range(processes):
        noise = generator.standard_normal(count) * 0.04
        for index in range(1, count):
            noise[index] += 0.3 * noise[index - 1]
        luck = generator.standard_normal() * process_sd
        found[process] = list(np.log(true_ratio) + noise + luck)
    return found


def test_equal_cases_are_hardly_ever_called_different() -> None:
    generator = np.random.default_rng(0)
    verdicts = [paired_ratio(rounds(generator, 1.0), seed) for seed in range(100)]
    wrong = [item for item in verdicts if item is None or item.verdict != "no significant difference"]
    assert len(wrong) <= 2


@pytest.mark.parametrize(("ratio", "verdict"), [(1.05, "slower"), (0.95, "faster")])
def test_a_difference_of_five_percent_is_found(ratio: float, verdict: str) -> None:
    generator = np.random.default_rng(1)
    verdicts = [paired_ratio(rounds(generator, ratio), seed) for seed in range(50)]
    assert sum(item is not None and item.verdict == verdict for item in verdicts) >= 45


def test_the_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(100):
        found = paired_ratio(rounds(generator, 1.2), seed)
        assert found is not None and found.interval is not None
        covered += found.interval[0] <= 1.2 <= found.interval[1]
    assert covered >= 95


def test_luck_of_processes_widens_the_interval() -> None:
    """Three processes 4 % apart from each other say little about the fourth, however many rounds each has."""
    generator = np.random.default_rng(3)
    apart = {
        i: [shift + 0.001 * generator.standard_normal() for _ in range(200)] for i, shift in enumerate((0, 0.04, 0.08))
    }
    found = paired_ratio(apart, 0)
    assert found is not None and found.interval is not None
    assert found.interval[1] - found.interval[0] > 0.06
    assert found.verdict == "no significant difference"


def test_a_difference_within_one_percent_is_never_called() -> None:
    sure = {0: [np.log(1.008)] * 100}
    found = paired_ratio(sure, 0)
    assert found is not None
    assert (found.ratio, found.verdict) == (pytest.approx(1.008), "no significant difference")


def test_too_few_rounds_have_no_interval() -> None:
    found = paired_ratio({0: [np.log(2.0)] * (FEWEST_ROUNDS - 1)}, 0)
    assert found is not None
    assert (found.ratio, found.interval, found.verdict) == (pytest.approx(2.0), None, "no significant difference")


def test_never_in_the_same_round_means_no_comparison() -> None:
    assert paired_ratio({}, 0) is None
    assert paired_ratio({0: []}, 0) is None


def test_the_same_seed_gives_the_same_interval() -> None:
    data = rounds(np.random.default_rng(4), 1.0)
    assert paired_ratio(data, 7) == paired_ratio(data, 7)
    assert paired_ratio(data, 7) != paired_ratio(data, 8)


def test_intervals_of_many_comparisons_are_wider_and_hold_the_same_ratio() -> None:
    rounds = {process: list(np.random.default_rng(process).normal(0.02, 0.02, 60)) for process in range(3)}
    single, many = paired_ratio(rounds), paired_ratio(rounds, family=20)
    assert single is not None and many is not None and single.interval is not None and many.interval is not None
    assert many.ratio == single.ratio
    # Normal quantiles at 1 - 0.005 and 1 - 0.005 / 20: 2.5758 and 3.4808 (tables).
    widths = [np.log(high / low) for low, high in (single.interval, many.interval)]
    assert widths[1] / widths[0] == pytest.approx(3.4808 / 2.5758, rel=1e-3)
