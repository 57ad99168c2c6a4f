"""Two classifiers on the same samples, one by one: what a difference of two rates cannot tell when samples are few."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from toolkit.data import Dataset
from toolkit.evaluator.accumulators import IGNORED
from toolkit.evaluator.stepping import steps
from toolkit.evaluator.subject import open_subject
from toolkit.evaluator.tasks import scored_output
from toolkit.providers.session import Session
from toolkit.tensors import Array

_SUMS_TO_ONE = 1e-3


class PairedOutcome(msgspec.Struct, frozen=True):
    """What the second model did where the first one did otherwise.

    Attributes:
        lost: samples that the first model alone has right.
        gained: samples that the second one alone has right.
        expected_drop: loss of accuracy in points that the first model itself expects: by how much its probability for
            the second one's answer is below that for its own, on average. Labels play no part, so that it varies from
            sample set to sample set far less than a count does; a model that is too sure of itself makes it too large.
    """

    samples: int
    lost: int
    gained: int
    expected_drop: float

    @property
    def standard_error(self) -> float:
        """Of the drop that was measured, in samples. Source: McNemar (Psychometrika 12, 1947)."""
        return math.sqrt(self.lost + self.gained)

    @property
    def p_value(self) -> float:
        """How often two equally good models would come out at least this bad: the exact one-sided sign test."""
        differing = self.lost + self.gained
        ways = sum(math.comb(differing, count) for count in range(self.lost, differing + 1))
        return float(ways / 2**differing)


def paired(before: Session, after: Session, data: Dataset) -> PairedOutcome | None:
    """Run two classifiers over ``data``, in turns; None where labels are not one class per sample."""
    found: list[tuple[Array, Array, Array]] = []
    with open_subject(before, before.target) as subject:
        inputs = subject.inputs
    for (batch, wanted), (_, got) in zip(steps(before, data, inputs), steps(after, data, inputs), strict=True):
        name = scored_output(None, wanted)
        labels, scores = batch.labels, wanted[name]
        if labels is None or labels.ndim != 1 or scores.ndim != 2 or len(scores) != len(labels):
            return None
        counted = labels != IGNORED
        found.append(_compared(_probabilities(scores[counted]), got[name][counted], labels[counted]))
    right, still, regret = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return PairedOutcome(
        samples=len(right),
        lost=int((right & ~still).sum()),
        gained=int((~right & still).sum()),
        expected_drop=100 * float(regret.mean()) if regret.size else 0.0,
    )


def _compared(probabilities: Array, scores: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Per sample: whether either model is right, and what the first one thinks is lost by the second one's answer."""
    rows, own, other = np.arange(len(labels)), probabilities.argmax(1), scores.argmax(1)
    return own == labels, other == labels, probabilities[rows, own] - probabilities[rows, other]


def _probabilities(scores: Array) -> Array:
    """``scores``, through softmax unless they are probabilities already."""
    scores = scores.astype(np.float64)
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=_SUMS_TO_ONE):
        return scores
    raised = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))
