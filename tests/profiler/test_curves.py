"""Cost curves: known ones are found again, behind an overhead too, and intervals hold what is true."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from toolkit.profiler.curves import Blocks, curve

BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0)


def blocks(latency_ns: float, noise: float = 0.0, seed: int = 0, processes: int = 3) -> Blocks:
    """Ten blocks of each process around ``latency_ns``; half of the noise stays for a process's life."""
    generator = np.random.default_rng(seed)
    return {
        process: list(latency_ns * np.exp(noise / 2 * generator.standard_normal())
                      * np.exp(noise * generator.standard_normal(10)))
        for process in range(processes)
    }  # fmt: skip


def points(law: Callable[[float], float], values: tuple[float, ...] = BATCHES, noise: float = 0.0, seed: int = 0):  # type: ignore[no-untyped-def]
    return [(value, blocks(law(value), noise, seed * 100 + index)) for index, value in enumerate(values)]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("overhead_ns", [0.0, 50_000.0, 500_000.0])
def test_a_known_exponent_is_found_behind_any_overhead(exponent: float, overhead_ns: float) -> None:
    found = curve(points(lambda x: overhead_ns + 20_000 * x**exponent))
    assert found.exponent == pytest.approx(exponent, abs=0.02)
    assert found.overhead_ns == pytest.approx(overhead_ns, rel=0.05, abs=2000)
    assert found.factor_ns == pytest.approx(20_000, rel=0.1)
    assert "fitted over 5 points, 1 to 16, beside an overhead of" in found.note


def test_threads_make_it_fall_as_amdahl_says() -> None:
    found = curve(points(lambda x: 1e6 + 8e6 / x, (1.0, 2.0, 4.0, 8.0)))
    assert found.exponent == pytest.approx(-1, abs=0.02)
    assert found.overhead_ns == pytest.approx(1e6, rel=0.05)


def test_the_interval_holds_the_truth_and_narrows_with_the_noise() -> None:
    held = 0
    widths = {}
    for noise in (0.01, 0.05):
        intervals = []
        for seed in range(10):
            found = curve(points(lambda x: 10_000 + 20_000 * x, noise=noise, seed=seed))
            assert found.interval is not None and found.exponent is not None
            assert found.interval[0] <= found.exponent <= found.interval[1]
            held += found.interval[0] - 0.01 <= 1 <= found.interval[1] + 0.01
            intervals.append(found.interval[1] - found.interval[0])
        widths[noise] = float(np.median(intervals))
    assert held >= 18  # of 20; three processes are few for a bootstrap
    assert widths[0.01] < widths[0.05] < 1


def test_a_cost_that_does_not_change_has_no_exponent() -> None:
    found = curve(points(lambda x: 50_000 + 100 * x))
    assert found.exponent is None and found.interval is None
    assert found.note == "the cost changes by 3% over the whole sweep: no exponent"


def test_too_few_points() -> None:
    assert curve([]).note == "0 points are too few for a cost curve, 3 are needed"
    two = curve(points(lambda x: 1000 * x, (1.0, 8.0)))
    assert two.exponent is None and "2 points are too few" in two.note


def test_three_points_are_fixed_exactly_and_that_is_said() -> None:
    found = curve(points(lambda x: 50_000 + 1000 * x**1.5, (16.0, 32.0, 64.0)))
    assert found.exponent == pytest.approx(1.5, abs=0.02)
    assert "a fourth would show whether it fits" in found.note


def test_the_same_seed_gives_the_same_interval() -> None:
    noisy = points(lambda x: 1000 * x, noise=0.05)
    assert curve(noisy, seed=3) == curve(noisy, seed=3)
