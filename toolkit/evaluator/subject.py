"""The model to evaluate, opened: its session, and what its file or bundle says about data, labels and task."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from toolkit.bundle.kind import is_bundle
from toolkit.bundle.reader import open_bundle
from toolkit.errors import InvalidModel, NotApplicable
from toolkit.preprocess import Preprocessing
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.runtime.loader import load
from toolkit.targets import Target
from toolkit.tensors import TensorSpec


class Subject(msgspec.Struct, frozen=True):
    """A session and what was recorded with its model; ``inputs`` are the file's, since engines drop names of dims."""

    session: Session
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    task: str = ""
    state: dict[str, str] = {}


@contextmanager
def open_subject(model: str | os.PathLike[str] | Session, target: str | Target) -> Iterator[Subject]:
    """Open a path on ``target`` and close it again; a session that is open already stays open and keeps its target."""
    if isinstance(model, Session):
        yield _described(model, model.model)
        return
    chosen = target if isinstance(target, Target) else registry.target(target)
    _require_fit(model, chosen)
    with load(model, chosen) as session:
        yield _described(session, model)


def _require_fit(path: str | os.PathLike[str], target: Target) -> None:
    """A bare file must be of a precision that the target takes; of a bundle's variants the loader picks one that is."""
    if Path(path).suffix != ".onnx" or not Path(path).is_file():
        return
    from toolkit.graph.facts import facts, require_runnable

    known = facts(path)
    require_runnable(known, path)
    if not target.allows(known.precision):
        takes = ", ".join(target.precisions)
        raise NotApplicable(
            f"the file is {known.precision}, the target takes {takes}", where=f"{path} on {target.name}"
        )


def _described(session: Session, path: str | os.PathLike[str]) -> Subject:
    plain = Subject(session, session.inputs, session.preprocessing, session.labels)
    if not Path(path).exists():
        return plain
    if is_bundle(path):
        manifest = open_bundle(path).manifest
        return msgspec.structs.replace(plain, task=manifest.task, state=manifest.state)
    if Path(path).suffix == ".onnx":
        return _from_graph(plain, Path(path))
    return plain


def _from_graph(plain: Subject, path: Path) -> Subject:
    from toolkit.graph.facts import facts

    known = facts(path)
    recorded = known.metadata
    preprocessing = plain.preprocessing
    if preprocessing is None and "toolkit.preprocessing" in recorded:
        preprocessing = Preprocessing.from_json(recorded["toolkit.preprocessing"], where=path)
    return Subject(
        plain.session,
        known.inputs,
        preprocessing,
        plain.labels or _json(recorded, "toolkit.labels", tuple[str, ...], path) or (),
        recorded.get("toolkit.task", ""),
        _json(recorded, "toolkit.state", dict[str, str], path) or {},
    )


def _json(metadata: Mapping[str, str], key: str, form: Any, path: Path) -> Any:
    if key not in metadata:
        return None
    try:
        return msgspec.json.decode(metadata[key], type=form)
    except msgspec.DecodeError as exc:
        raise InvalidModel(f"the metadata entry '{key}' does not hold", where=path, got=exc) from exc
