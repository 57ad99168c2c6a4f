"""``toolkit.evaluate``: a model's quality on labelled data, on any target."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from toolkit.data import Dataset, from_iterable, open_data
from toolkit.errors import UsageError
from toolkit.evaluator.accumulators import Accumulator
from toolkit.evaluator.custom import Custom
from toolkit.evaluator.report import EvaluationReport
from toolkit.evaluator.stepping import steps
from toolkit.evaluator.subject import Subject, open_subject
from toolkit.evaluator.tasks import Question, accumulator
from toolkit.files import existing_file
from toolkit.preprocess import Preprocessing
from toolkit.providers.session import Session
from toolkit.targets import Target

PathLike = str | os.PathLike[str]


def evaluate(
    model: PathLike | Session,
    data: PathLike | Dataset | Iterable[Any],
    *,
    target: str | Target = "cpu",
    task: str | None = None,
    metric: str | Callable[..., Any] | None = None,
    top_k: Sequence[int] = (1, 5),
    output: str | None = None,
    preprocessing: Preprocessing | PathLike | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    peak: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> EvaluationReport:
    """Run ``model`` over ``data`` batch by batch and score its outputs.

    Args:
        model: an ONNX file, a bundle, or an open session, which stays open and keeps its target.
        data: a path (docs/data.md), a dataset, or an iterable of batches.
        target: a name, a TOML file, ``provider[:device]``, or a :class:`Target`.
        task: one of :data:`toolkit.evaluator.tasks.TASKS`; by default the recorded one, else what is seen.
        metric: instead of the task's metrics: ``module:function``, ``file.py:function`` or a function; see
            :class:`toolkit.evaluator.custom.Custom`.
        top_k: for classification.
        output: which output to score; by default the one called "logits", else the only one that fits.
        preprocessing: instead of what is recorded with the model: JSON in a file, or a :class:`Preprocessing`.
        batch_size: samples per run, where the model leaves it open.
        limit: use only the first samples.
        peak: the largest value an image can hold, for PSNR.
        progress: called after each batch with the number of samples in it.

    Raises:
        UsageError: bad input; every kind has its subclass and one clear line.
        ProviderUnavailable, NotApplicable, EngineError: as when the model is loaded.
    """
    with open_subject(model, target) as subject:
        chosen = _preprocessing(preprocessing, subject)
        dataset = _dataset(data, subject, chosen, batch_size, limit)
        question = Question(
            task=task or subject.task, output=output, top_k=tuple(top_k), labels=subject.labels, peak=peak,
            preprocessing=chosen, inputs=subject.inputs, data=dataset.name, class_names=dataset.class_names,
        )  # fmt: skip
        name = "" if metric is None else "custom"
        scorer: Accumulator | None = None if metric is None else Custom(metric)
        samples = 0
        for batch, outputs in steps(subject.session, dataset, subject.inputs):
            if scorer is None:
                name, scorer = accumulator(question, outputs, batch)
            scorer.update(outputs, batch)
            samples += batch.count
            if progress is not None:
                progress(batch.count)
        assert scorer is not None, "a dataset without samples raises"
        return EvaluationReport.of(
            scorer.result(),
            model=str(subject.session.model),
            target=subject.session.target.name,
            provider=subject.session.provider,
            task=name,
            data=dataset.name,
            data_sha256=dataset.sha256,
            samples=samples,
            labels=subject.labels or dataset.class_names,
            notes=subject.session.notes,
        )


def _preprocessing(given: Preprocessing | PathLike | None, subject: Subject) -> Preprocessing | None:
    if given is None or isinstance(given, Preprocessing):
        return given or subject.preprocessing
    path = existing_file(given, "preprocessing file")
    return Preprocessing.from_json(path.read_bytes(), where=path)


def _dataset(
    data: PathLike | Dataset | Iterable[Any],
    subject: Subject,
    chosen: Preprocessing | None,
    batch_size: int,
    limit: int | None,
) -> Dataset:
    if isinstance(data, Dataset):
        return data if limit is None else data.take(0, limit)
    settings: dict[str, Any] = {
        "inputs": subject.inputs, "preprocessing": chosen, "batch_size": batch_size, "limit": limit,
        "state": subject.state,
    }  # fmt: skip
    if isinstance(data, str | os.PathLike):
        return open_data(Path(data), labels=subject.labels, **settings)
    if isinstance(data, Iterable) or callable(data):
        return from_iterable(data, **settings)
    raise UsageError("not data", where="evaluate", got=type(data).__name__, expected="a path, a dataset or an iterable")
