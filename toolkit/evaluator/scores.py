"""Classification scores from counts, and intervals for them; numpy only, checked against scikit-learn in the tests."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from toolkit.tensors import Array

# Two-sided 95 % quantile of the standard normal distribution.
Z95 = 1.959963984540054
Average = Literal["macro", "micro", "weighted"]
AVERAGES: tuple[Average, ...] = ("macro", "micro", "weighted")


class ClassScores(msgspec.Struct, frozen=True):
    """One class against all others. ``support`` is the number of samples that are of it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def per_class(confusion: Array, missed: Array) -> tuple[Array, Array, Array, Array]:
    """Precision, recall, F1 and support of each class; what has nothing to divide by is 0, as in scikit-learn.

    Args:
        confusion: ``(C, C)`` counts, rows = true class, columns = predicted class.
        missed: ``(C,)`` samples of each class without a prediction (scores that are not finite).
    """
    right = np.diag(confusion).astype(float)
    support = confusion.sum(1) + missed
    precision = _ratio(right, confusion.sum(0))
    recall = _ratio(right, support)
    return precision, recall, _ratio(2 * precision * recall, precision + recall), support


def averaged(confusion: Array, missed: Array, average: Average) -> tuple[float, ...]:
    """Precision, recall and F1 over all classes.

    ``macro`` averages classes that occur, as truth or as prediction; ``weighted`` weighs them by support; ``micro``
    counts all samples as one.

    Source: scikit-learn, precision_recall_fscore_support (labels = the union of true and predicted ones).
    """
    precision, recall, f1, support = per_class(confusion, missed)
    if average == "micro":
        right, predicted, total = np.trace(confusion), confusion.sum(), support.sum()
        overall = [float(_ratio(np.array(right), np.array(count))) for count in (predicted, total)]
        both = sum(overall)
        return overall[0], overall[1], 2 * overall[0] * overall[1] / both if both else 0.0
    occurs = (support > 0) | (confusion.sum(0) > 0)
    weights = support if average == "weighted" else occurs.astype(float)
    return tuple(float(np.average(values, weights=weights)) for values in (precision, recall, f1))


def _ratio(part: Array, whole: Array) -> Array:
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole != 0))


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Interval for a share, 95 % by default; right also near 0 and 1, where the normal one leaves [0, 1].

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    share, scale = successes / trials, 1 + z * z / trials
    center = (share + z * z / (2 * trials)) / scale
    margin = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the interval touches 0 or 1 exactly; rounding must not say otherwise.
    low = 0.0 if successes == 0 else center - margin
    high = 1.0 if successes == trials else center + margin
    return low, high


def ratio_interval(sums: Array, weights: Array, z: float = Z95) -> tuple[float, float] | None:
    """Interval for ``sum(sums) / sum(weights)`` where samples, not their parts, are independent; None below two.

    Source: W. G. Cochran, Sampling Techniques, 3rd ed., section 6.3 (ratio estimator, linearized variance).
    """
    if len(sums) < 2 or not weights.sum():
        return None
    ratio = sums.sum() / weights.sum()
    residuals = sums - ratio * weights
    error = math.sqrt(float((residuals**2).sum()) * len(sums) / (len(sums) - 1)) / float(weights.sum())
    return float(ratio - z * error), float(ratio + z * error)
