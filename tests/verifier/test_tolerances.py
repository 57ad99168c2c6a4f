from __future__ import annotations

import numpy as np
import pytest

from toolkit.tensors import Array
from toolkit.verifier.metrics import compare_arrays
from toolkit.verifier.tolerances import TOLERANCES, judge, tolerance_for

GENERATOR = np.random.default_rng(0)
REFERENCE = GENERATOR.standard_normal((8, 100)).astype(np.float32)


def noisy(relative: float) -> Array:
    return (REFERENCE * (1 + relative * GENERATOR.standard_normal(REFERENCE.shape))).astype(np.float32)


def test_the_coarser_precision_decides() -> None:
    assert tolerance_for("float32", "float16").name == "float16"
    assert tolerance_for("int8", "bfloat16").name == "int8"
    assert tolerance_for("float64", "float32").name == "float32"
    assert tolerance_for("", "").name == "float32"


@pytest.mark.parametrize(
    ("precision", "passes", "fails"),
    [("float32", 1e-6, 1e-3), ("float16", 1e-3, 3e-2), ("bfloat16", 1e-2, 0.2), ("int8", 0.1, 3.0)],
)
def test_each_precision_passes_its_rounding_and_no_more(precision: str, passes: float, fails: float) -> None:
    tolerance = TOLERANCES[precision]
    assert judge(compare_arrays(REFERENCE, noisy(passes)), tolerance) is None
    assert judge(compare_arrays(REFERENCE, noisy(fails)), tolerance) is not None


def test_the_mean_error_is_bounded_too() -> None:
    candidate = (REFERENCE + 6e-5 * np.sign(REFERENCE)).astype(np.float32)
    metrics = compare_arrays(REFERENCE, candidate)
    assert metrics.max_abs < TOLERANCES["float32"].max_error * metrics.peak
    reason = judge(metrics, TOLERANCES["float32"])
    assert reason is not None and "SNR" in reason


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (REFERENCE[:4], "shape [4, 100] instead of [8, 100]"),
        (REFERENCE.astype(np.int64), "type int64 instead of float32"),
        (np.where(REFERENCE > 2, np.nan, REFERENCE), "NaN or infinity"),
        (REFERENCE + 1, "largest error 1"),
    ],
)
def test_reasons_say_what_is_wrong(candidate: Array, words: str) -> None:
    reason = judge(compare_arrays(REFERENCE, candidate), TOLERANCES["float32"])
    assert reason is not None and words in reason


def test_integers_are_exact_but_for_ties() -> None:
    metrics = compare_arrays(np.array([1, 2, 3]), np.array([1, 2, 4]))
    assert judge(metrics, TOLERANCES["int8"]) == "1 of 3 elements differ and are no ties"
    assert judge(metrics, TOLERANCES["int8"], ties=1) is None


def test_an_output_that_cancels_in_one_case_is_held_against_its_peak_over_all() -> None:
    metrics = compare_arrays(np.full(4, 1e-9, np.float32), np.zeros(4, np.float32))
    assert judge(metrics, TOLERANCES["float32"]) is not None
    assert judge(metrics, TOLERANCES["float32"], peak=1.0) is None


def test_every_tolerance_states_its_source() -> None:
    assert all(tolerance.source and tolerance.name == name for name, tolerance in TOLERANCES.items())
