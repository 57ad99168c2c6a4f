from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import UsageError
from toolkit.quantizer.calibration.histogram import Distribution, StreamingHistogram
from toolkit.quantizer.calibration.observers import PERCENTILE, observed_range, rounding_snr_db
from toolkit.quantizer.choices import OBSERVERS, Observer
from toolkit.tensors import Array


def distribution(values: Array) -> Distribution:
    histogram = StreamingHistogram()
    histogram.update(values)
    return histogram.distribution()


def heavy_tailed() -> Array:
    generator = np.random.default_rng(0)
    values = generator.laplace(size=200_000).astype(np.float32)
    values[:4] = [60, -45, 55, 58]
    return values


def rounding_error(values: Array, bounds: tuple[float, float]) -> float:
    step = (bounds[1] - bounds[0]) / 255
    rounded = np.round(np.clip(values, *bounds) / step) * step
    return float(np.mean((rounded - values) ** 2))


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_range_holds_zero_and_stays_within_what_was_seen(observer: Observer, symmetric: bool) -> None:
    for values in (heavy_tailed(), np.maximum(heavy_tailed(), 0), heavy_tailed() + 100, -np.abs(heavy_tailed())):
        low, high = observed_range(distribution(values), observer, symmetric=symmetric)
        assert low <= 0 <= high
        assert high - low > 0
        largest = float(np.abs(values).max())
        assert -largest <= low
        assert high <= largest
        assert not symmetric or low == -high


def test_minmax_is_exact() -> None:
    assert observed_range(distribution(heavy_tailed()), "minmax", symmetric=False) == (-45.0, 60.0)
    assert observed_range(distribution(heavy_tailed()), "minmax", symmetric=True) == (-60.0, 60.0)


def test_percentile_is_numpys_to_within_a_bin() -> None:
    seen = distribution(heavy_tailed())
    low, high = observed_range(seen, "percentile", symmetric=False)
    wanted = np.percentile(heavy_tailed(), [100 - PERCENTILE, PERCENTILE])
    assert abs(low - wanted[0]) <= seen.width
    assert abs(high - wanted[1]) <= seen.width


def test_mse_rounds_better_than_minmax_and_close_to_the_best_there_is() -> None:
    values = heavy_tailed()
    seen = distribution(values)
    found = rounding_error(values, observed_range(seen, "mse", symmetric=True))
    best = min(rounding_error(values, (-bound, bound)) for bound in np.linspace(3, 60, 115))
    assert found < 0.7 * rounding_error(values, observed_range(seen, "minmax", symmetric=True))
    assert found < 1.1 * best


def test_mse_draws_in_only_the_side_that_pays() -> None:
    values = np.abs(heavy_tailed())
    values[:8] = -0.5
    low, high = observed_range(distribution(values), "mse", symmetric=False)
    assert -0.5 <= low < 0
    assert high < 40


def test_entropy_cuts_lone_outliers_but_not_the_body() -> None:
    low, high = observed_range(distribution(heavy_tailed()), "entropy", symmetric=False)
    assert 5 < high < 45
    assert -45 < low < -5


@pytest.mark.parametrize("observer", OBSERVERS)
def test_uniform_values_keep_their_range(observer: Observer) -> None:
    values = np.random.default_rng(0).uniform(-1, 3, 100_000).astype(np.float32)
    low, high = observed_range(distribution(values), observer, symmetric=False)
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_a_constant_is_kept(observer: Observer, value: float) -> None:
    low, high = observed_range(distribution(np.full(100, value, np.float32)), observer, symmetric=False)
    assert (low, high) == pytest.approx((min(value, 0), max(value, 0)), rel=0.01)


def test_nothing_seen_is_no_range() -> None:
    assert observed_range(Distribution(), "mse", symmetric=False) == (0.0, 0.0)


def test_an_unknown_observer_is_named() -> None:
    with pytest.raises(UsageError, match="no such observer.*minmx.*minmax"):
        observed_range(Distribution(), "minmx", symmetric=False)


def test_rounding_is_told_in_decibels() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    histogram = StreamingHistogram()
    histogram.update(values)
    seen = histogram.distribution()
    # A uniform signal over 255 steps: 20 log10(255) decibels; source: the noise of a step is step^2 / 12.
    assert rounding_snr_db(seen, (seen.lowest, seen.highest)) == pytest.approx(48.1, abs=0.3)
    assert rounding_snr_db(seen, (-10.0, 10.0)) == pytest.approx(28.1, abs=0.5)
    assert rounding_snr_db(seen, (0.0, 0.0)) == 0.0
