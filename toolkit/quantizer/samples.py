"""The samples that a quantization calibrates on, chooses by and reports on: three jobs, two parts of the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from toolkit.data import Dataset, from_iterable, open_data
from toolkit.data.dataset import DEFAULT_BATCH
from toolkit.errors import InvalidData, InvalidModel
from toolkit.graph.facts import GraphFacts
from toolkit.preprocess import Preprocessing

PREPROCESSING_KEY, STATE_KEY, LABELS_KEY = "toolkit.preprocessing", "toolkit.state", "toolkit.labels"
CHOOSE_FRACTION = 0.5
"""Part of the labelled data that choices are made on; the figure in the report comes from the rest."""
_SEED = 0

Samples = Dataset | str | os.PathLike[str] | Any
"""A dataset, a path, or an iterable of batches (or a function that gives one)."""


def open_samples(
    data: Samples, facts: GraphFacts, *, state: Mapping[str, str] | None = None, limit: int | None = None
) -> Dataset:
    """``data`` as a dataset for the model that ``facts`` describes, through the preprocessing recorded in it.

    Raises:
        FileProblem, InvalidData: nothing is there, it is no data, or the model needs what it lacks.
    """
    if isinstance(data, Dataset):
        return data if limit is None else data.take(0, limit)
    settings: dict[str, Any] = {
        "inputs": facts.inputs,
        "preprocessing": recorded_preprocessing(facts),
        "state": {**recorded_state(facts), **(state or {})},
        "limit": limit,
        "batch_size": DEFAULT_BATCH if batches(facts) else 1,
    }
    if isinstance(data, str | os.PathLike):
        return open_data(data, labels=recorded_labels(facts), **settings)
    return from_iterable(data, **settings)


def batches(facts: GraphFacts) -> bool:
    """Whether samples may share a batch: not where an inner dim is dynamic, since each may have a size of its own."""
    return all(isinstance(dim, int) for spec in facts.inputs for dim in (spec.shape or ())[1:])


def recorded_preprocessing(facts: GraphFacts) -> Preprocessing | None:
    text = facts.metadata.get(PREPROCESSING_KEY)
    return Preprocessing.from_json(text, where=PREPROCESSING_KEY) if text else None


def recorded_state(facts: GraphFacts) -> dict[str, str]:
    """State pairs that the model's file names: input to output."""
    return _recorded(facts, STATE_KEY, dict[str, str]) or {}


def recorded_labels(facts: GraphFacts) -> tuple[str, ...]:
    """Class names, which folders of images may be called after."""
    return _recorded(facts, LABELS_KEY, tuple[str, ...]) or ()


def _recorded(facts: GraphFacts, key: str, form: Any) -> Any:
    text = facts.metadata.get(key)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=form)
    except msgspec.DecodeError as exc:
        raise InvalidModel("metadata cannot be read", where=key, got=text[:80]) from exc


class Parts(NamedTuple):
    """Samples to choose by, and samples to report on; the same where there are too few to split."""

    choose: Dataset
    report: Dataset
    disjoint: bool


def in_parts(data: Dataset) -> Parts:
    """Split ``data`` at random but always alike; what cannot be split is used for both, and says so."""
    try:
        choose, report = data.split(CHOOSE_FRACTION, _SEED)
    except InvalidData:
        return Parts(data, data, disjoint=False)
    return Parts(choose, report, disjoint=True)


def whole(data: Dataset) -> Parts:
    """All of ``data`` for the report: nothing is chosen on it."""
    return Parts(data, data, disjoint=True)
