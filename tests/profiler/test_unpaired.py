"""Unpaired ratios, tried on simulated machines whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toolkit.profiler.unpaired import UnpairedRatio, unpaired_ratio, verdicts

Side = dict[int, list[float]]


def side(
    generator: np.random.Generator, time: float = 1.0, *, processes: int = 3, rounds: int = 40, luck: float = 0.01
) -> Side:
    """Log medians of blocks: noise that resembles its neighbours, and luck that a process keeps."""
    found = {}
    for process in range(processes):
        noise = generator.standard_normal(rounds) * 0.03
        for index in range(1, rounds):
            noise[index] += 0.3 * noise[index - 1]
        found[process] = list(np.log(time) + noise + generator.standard_normal() * luck)
    return found


def ratio(old: Side, new: Side, seed: int = 0, **options: Any) -> UnpairedRatio:
    found = unpaired_ratio(old, new, seed, **options)
    assert found is not None
    return found


def test_the_interval_covers_the_truth_although_processes_are_few() -> None:
    generator = np.random.default_rng(0)
    found = [ratio(side(generator), side(generator, 1.1), seed) for seed in range(120)]
    covered = sum(item.interval is not None and item.interval[0] <= 1.1 <= item.interval[1] for item in found)
    assert covered >= 117


def test_equal_records_are_hardly_ever_called_different_even_many_at_once() -> None:
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(12):
        together = verdicts([ratio(side(generator), side(generator)) for _ in range(8)])
        wrong += any(verdict != "no significant difference" for verdict in together)
    assert wrong == 0


@pytest.mark.parametrize(("time", "verdict"), [(1.3, "slower"), (0.75, "faster")])
def test_a_large_difference_is_found_among_four(time: float, verdict: str) -> None:
    generator = np.random.default_rng(2)
    found = 0
    for seed in range(15):
        ratios = [ratio(side(generator), side(generator, time if i == 0 else 1.0), seed) for i in range(4)]
        found += verdicts(ratios)[0] == verdict
    assert found >= 13


def test_a_difference_within_the_margin_is_never_called_however_sure() -> None:
    old = {process: [0.0] * 50 for process in range(5)}
    new = {process: [float(np.log(1.04))] * 50 for process in range(5)}
    found = ratio(old, new)
    assert found.interval == pytest.approx((1.04, 1.04))
    assert verdicts([found]) == ["no significant difference"]
    assert verdicts([ratio(old, new, margin=0.01)]) == ["slower"]


def test_fewer_processes_make_wider_intervals_and_one_makes_none() -> None:
    generator = np.random.default_rng(3)
    widths = []
    for processes in (2, 3, 6):
        intervals = [
            ratio(side(generator, processes=processes), side(generator, processes=processes), seed).interval
            for seed in range(12)
        ]
        widths.append(float(np.median([high / low for low, high in filter(None, intervals)])))
    assert widths == sorted(widths, reverse=True)
    alone = ratio(side(generator, processes=1), side(generator, 2.0))
    assert alone.interval is None and "one process" in alone.reason
    assert verdicts([alone]) == ["no significant difference"]


def test_too_few_rounds_have_no_interval_and_none_no_ratio() -> None:
    generator = np.random.default_rng(4)
    few = ratio(side(generator, processes=2, rounds=3), side(generator))
    assert few.interval is None and few.reason == "6 rounds, 8 are needed"
    assert unpaired_ratio({}, side(generator)) is None


def test_holm_asks_more_of_each_when_there_are_many() -> None:
    def item(chance: float) -> UnpairedRatio:
        return UnpairedRatio(1.5, (1.2, 1.8), p_slower=chance, p_faster=1.0, processes=(3, 3))

    assert verdicts([item(0.004)]) == ["slower"]
    assert verdicts([item(0.004)] * 4) == ["no significant difference"] * 4
    mixed = verdicts([item(0.004), item(0.0001), item(0.3)])
    assert mixed == ["no significant difference", "slower", "no significant difference"]
    assert verdicts([]) == []


def test_a_larger_family_widens_the_interval() -> None:
    generator = np.random.default_rng(5)
    old, new = side(generator), side(generator)
    usual, wide = ratio(old, new).interval, ratio(old, new, family=10).interval
    assert usual is not None and wide is not None
    assert wide[0] < usual[0] < usual[1] < wide[1]
