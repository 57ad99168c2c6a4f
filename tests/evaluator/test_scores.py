"""Scores against scikit-learn, and intervals against what is published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.evaluator.scores import AVERAGES, Average, averaged, per_class, ratio_interval, wilson


def confusion_of(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 10**6), st.sampled_from(AVERAGES))
def test_averages_are_scikit_learns(classes: int, count: int, seed: int, average: Average) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    generator = np.random.default_rng(seed)
    truth, predicted = generator.integers(0, classes, (2, count))
    wanted = metrics.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)[:3]
    found = averaged(confusion_of(truth, predicted, classes), np.zeros(classes, np.int64), average)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


def test_scores_of_each_class_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    truth, predicted = np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 1, 1, 0, 0])
    wanted = metrics.precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=0)
    for found, column in zip(per_class(confusion_of(truth, predicted, 5), np.zeros(5, int)), wanted, strict=True):
        np.testing.assert_allclose(found, column)


def test_samples_without_a_prediction_lower_recall_and_not_precision() -> None:
    confusion, missed = np.array([[3, 0], [0, 4]]), np.array([1, 0])
    precision, recall, _, support = per_class(confusion, missed)
    assert precision.tolist() == [1, 1] and recall.tolist() == [0.75, 1] and support.tolist() == [4, 4]
    assert averaged(confusion, missed, "micro")[:2] == (1.0, 7 / 8)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Source: R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
    # (1998), table I, method 3 (score without continuity correction).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1),
    ],
)
def test_wilson_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_ratio_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        weights = generator.integers(5, 50, 80)
        sums = np.array([generator.exponential(2.0, weight).sum() for weight in weights])
        interval = ratio_interval(sums, weights)
        assert interval is not None
        hits += interval[0] < 2.0 < interval[1]
    assert 0.91 < hits / 500 < 0.98
    assert ratio_interval(np.ones(1), np.ones(1)) is None
