"""Accuracy before and after, in points, through the evaluator's metrics."""

from __future__ import annotations

from typing import NamedTuple

from toolkit.data import Dataset
from toolkit.errors import UsageError
from toolkit.evaluator.api import evaluate
from toolkit.providers.session import Session
from toolkit.quantizer.report import Accuracy

# Headline metric of each task, and how many points one unit of it is: hundredths of a fraction, decibels as they are.
_HEADLINES = {"accuracy": 100.0, "token_accuracy": 100.0, "psnr_db": 1.0}
_PER_SAMPLE = "accuracy"  # the metric that counts samples


class Score(NamedTuple):
    """One model's headline metric on ``samples`` samples."""

    metric: str
    value: float
    samples: int


def score(session: Session, data: Dataset, task: str | None = None) -> Score:
    """Evaluate ``session`` on ``data``.

    Raises:
        UsageError: the evaluator finds no metric for this model and data.
    """
    found = evaluate(session, data, task=task)
    for metric in _HEADLINES:
        if metric in found.metrics:
            return Score(metric, found.metrics[metric], found.samples)
    raise UsageError("no metric to keep a budget by", where=data.name, got=f"metrics {', '.join(found.metrics)}")


def compare(before: Score, after: Score, *, unseen: bool) -> Accuracy:
    """What the second model lost."""
    drop = (before.value - after.value) * _HEADLINES[before.metric]
    samples = round((before.value - after.value) * before.samples, 3) if before.metric == _PER_SAMPLE else None
    return Accuracy(
        metric=before.metric, before=before.value, after=after.value, drop=drop, samples=before.samples,
        drop_samples=samples, unseen=unseen,
    )  # fmt: skip
