"""What an evaluation found."""

from __future__ import annotations

from typing import Any

import msgspec

from toolkit.evaluator.scores import ClassScores


class Findings(msgspec.Struct, frozen=True):
    """What one task's accumulator says at the end.

    Attributes:
        metrics: value by name; fractions, nats and decibels, as the name says.
        intervals: 95 % interval of those metrics that have one.
        errors: wrong predictions; None where the task has no right and wrong.
        non_finite: samples whose output holds NaN or infinity.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}
    per_class: tuple[ClassScores, ...] = ()
    confusion: tuple[tuple[int, ...], ...] | None = None
    errors: int | None = None
    non_finite: int = 0
    notes: tuple[str, ...] = ()


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of one model on one target, measured on ``samples`` samples.

    Attributes:
        data: the data set's name; ``data_sha256`` its hash, None for iterables.
        confusion: rows = true class, columns = predicted class; None for other tasks, and for more than 100 classes.
        per_class: only classes that occur in the data or in the predictions.
    """

    model: str
    target: str
    provider: str
    task: str
    data: str
    data_sha256: str | None
    samples: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    errors: int | None
    non_finite: int
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Findings, **context: Any) -> EvaluationReport:
        """The report of ``found`` in its ``context``: model, target, data, and so on; notes of both are kept."""
        notes = (*context.pop("notes", ()), *found.notes)
        fields = {name: getattr(found, name) for name in Findings.__struct_fields__ if name != "notes"}
        return cls(**context, **fields, notes=notes)
