from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.verifier.metrics import compare_arrays, decibels

SCORES = np.array([[1.0, 2.0, 4.0], [8.0, 1.0, 0.0]], np.float32)


def test_equal_arrays_have_no_error() -> None:
    metrics = compare_arrays(SCORES, SCORES.copy(), "scores")
    assert (metrics.max_abs, metrics.rms, metrics.cosine, metrics.top1_agreement) == (0.0, 0.0, 1.0, 1.0)
    assert metrics.snr_db == math.inf
    assert metrics.peak == 8.0


def test_the_numbers_are_what_the_formulas_say() -> None:
    candidate = SCORES.copy()
    candidate[0, 2] = 4.5
    metrics = compare_arrays(SCORES, candidate)
    assert metrics.max_abs == 0.5
    assert metrics.max_rel == 0.125
    assert metrics.rms == pytest.approx(0.5 / math.sqrt(6))
    assert metrics.snr_db == pytest.approx(10 * math.log10(86 / 0.25))


def test_relative_error_leaves_out_what_cancelled() -> None:
    metrics = compare_arrays(np.array([1.0, 1e-9]), np.array([1.0, 2e-9]))
    assert metrics.max_rel == 0.0
    assert metrics.max_abs == pytest.approx(1e-9)


def test_top1_counts_rows_and_lets_ties_agree() -> None:
    swapped = SCORES[:, ::-1]
    assert compare_arrays(SCORES, swapped).top1_agreement == 0.0
    tied = np.array([[5.0, 5.0]])
    assert compare_arrays(tied, np.array([[4.9, 5.0]])).top1_agreement == 1.0
    assert compare_arrays(SCORES.reshape(1, 1, 2, 3), SCORES.reshape(1, 1, 2, 3)).top1_agreement is None


def test_nonfinite_values_have_to_stand_in_the_same_places() -> None:
    reference = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    same = compare_arrays(reference, reference.copy())
    assert (same.nonfinite_mismatches, same.max_abs, same.peak) == (0, 0.0, 2.0)
    assert compare_arrays(reference, np.array([np.nan, 0.0, -np.inf, -np.inf, 2.0])).nonfinite_mismatches == 3


def test_integers_booleans_and_text_are_counted() -> None:
    assert compare_arrays(np.array([1, 2, 3]), np.array([1, 0, 0])).mismatches == 2
    assert compare_arrays(np.array([True, False]), np.array([True, True])).mismatches == 1
    assert compare_arrays(np.array(["a", "b"], object), np.array(["a", "c"], object)).mismatches == 1


def test_other_shapes_and_kinds_are_described_not_compared() -> None:
    assert not compare_arrays(SCORES, SCORES[:1]).comparable
    assert not compare_arrays(SCORES, SCORES.astype(np.int64)).comparable
    assert compare_arrays(SCORES, SCORES.astype(np.float16)).comparable


def test_empty_and_scalar_arrays_compare() -> None:
    assert compare_arrays(np.zeros((0, 3)), np.zeros((0, 3))).max_abs == 0.0
    assert compare_arrays(np.array(2.0), np.array(2.5)).max_abs == 0.5


def test_arrays_larger_than_a_block_are_summed_over_blocks() -> None:
    reference = np.ones(3_000_000, np.float32)
    candidate = reference.copy()
    candidate[-1] = 2.0
    metrics = compare_arrays(reference, candidate)
    assert metrics.max_abs == 1.0
    assert metrics.snr_db == pytest.approx(10 * math.log10(3e6))


def test_decibels_of_nothing() -> None:
    assert decibels(1.0, 0.0) == math.inf
    assert decibels(0.0, 1.0) == -math.inf
