"""Which task a model and its data are: as named, as recorded, else as outputs and labels show."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from toolkit.data import Batch
from toolkit.errors import InvalidData, UsageError
from toolkit.evaluator.accumulators import Accumulator, Classification, LanguageModel, Reconstruction
from toolkit.preprocess import Preprocessing, Tokenize
from toolkit.tensors import INTEGERS, Array, TensorSpec, nearest

CLASSIFICATION, LANGUAGE, IMAGES = "classification", "text-generation", "image-to-image"
# What users and model files say, and which of the three it is. Names follow the Hugging Face hub's.
TASKS: Mapping[str, str] = {
    "classification": CLASSIFICATION, "image-classification": CLASSIFICATION, "audio-classification": CLASSIFICATION,
    "text-classification": CLASSIFICATION, "token-classification": CLASSIFICATION, "text-generation": LANGUAGE,
    "language-modeling": LANGUAGE, "image-to-image": IMAGES, "super-resolution": IMAGES,
}  # fmt: skip
# Names that exporters give to the output that is scored.
SCORED_NAMES = ("logits", "scores", "probabilities")


class Question(msgspec.Struct, frozen=True):
    """What is asked: the task as named or recorded (may be empty), and what else the caller chose."""

    task: str
    output: str | None
    top_k: tuple[int, ...]
    labels: tuple[str, ...]
    peak: float | None
    preprocessing: Preprocessing | None
    inputs: tuple[TensorSpec, ...]
    data: str
    class_names: tuple[str, ...] = ()
    """Of the data, where labels are positions among them."""


def accumulator(question: Question, outputs: Mapping[str, Array], batch: Batch) -> tuple[str, Accumulator]:
    """The task's name and its accumulator, decided with the first batch in hand.

    Raises:
        UsageError: an unknown task or output, or nothing shows what the task is.
    """
    output = scored_output(question.output, outputs)
    task = question.task or _shown(outputs[output], batch, question)
    if task not in TASKS:
        raise UsageError("no metrics for this task", where="--task", got=task, expected=nearest(task, TASKS))
    kind = TASKS[task]
    if kind == CLASSIFICATION:
        _check_classes(question, outputs[output].shape[-1])
        return task, Classification(output, question.top_k, question.labels or question.class_names, question.data)
    if kind == IMAGES:
        return task, Reconstruction(output, question.peak, question.data)
    return task, LanguageModel(output, _ids(question), _mask(question), _pad(question), question.data)


def scored_output(wanted: str | None, outputs: Mapping[str, Array]) -> str:
    """The output that is scored: as wanted, else the one called like scores, else the only one.

    Raises:
        UsageError: the model has no such output, or several and no name shows which.
    """
    if wanted is not None:
        if wanted not in outputs:
            raise UsageError(
                "the model has no such output", where="--scored-output", got=wanted, expected=nearest(wanted, outputs)
            )
        return wanted
    named = [name for name in SCORED_NAMES if name in outputs]
    if named or len(outputs) == 1:
        return (named or list(outputs))[0]
    raise UsageError("which output is to be scored?", where="--scored-output", expected=nearest("", outputs))


def _check_classes(question: Question, classes: int) -> None:
    """Folders that count in the order of their names mean the model's classes only if they are all there."""
    if question.class_names and len(question.class_names) != classes:
        raise InvalidData(
            "which classes of the model are these folders?", where=question.data,
            got=f"{len(question.class_names)} folders, {classes} classes",
            next_step="call the folders by class numbers, or record the model's labels",
        )  # fmt: skip


def _shown(values: Array, batch: Batch, question: Question) -> str:
    """What the first batch shows the task to be."""
    labels = batch.labels
    if (
        labels is not None
        and values.shape[:-1] == labels.shape
        and (labels.dtype.kind in "iub" or values.shape[-1] > 1)
    ):
        return CLASSIFICATION
    if labels is not None and values.shape == labels.shape:
        return IMAGES
    tokens = any(spec.dtype in INTEGERS and spec.shape is not None and len(spec.shape) == 2 for spec in question.inputs)
    if labels is None and values.ndim == 3 and tokens:
        return LANGUAGE
    got = "no labels" if labels is None else f"labels {labels.dtype}{list(labels.shape)}"
    raise UsageError(
        "cannot tell what to score", where=question.data, got=f"{got}, outputs {list(values.shape)}",
        next_step=f"give the data labels, or name the --task ({', '.join(sorted(set(TASKS.values())))}) or a --metric",
    )  # fmt: skip


def _ids(question: Question) -> str:
    names = [spec.name for spec in question.inputs if spec.dtype in INTEGERS and "mask" not in spec.name]
    if not names:
        got = ", ".join(map(str, question.inputs))
        raise UsageError("a language model takes token ids", where="--task text-generation", got=got)
    return next((name for name in names if name == "input_ids"), names[0])


def _mask(question: Question) -> str | None:
    return next((spec.name for spec in question.inputs if "mask" in spec.name), None)


def _pad(question: Question) -> int | None:
    """What texts are filled up with, where the recorded preprocessing says so."""
    items = question.preprocessing.inputs if question.preprocessing is not None else ()
    return next((step.pad for item in items for step in item.steps if isinstance(step, Tokenize)), None)
