"""A model to compare, opened: its session, and what its file says beyond what engines report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from toolkit.errors import InvalidModel
from toolkit.preprocess import Preprocessing
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.runtime.loader import load
from toolkit.targets import Target
from toolkit.tensors import TensorSpec


class Opened(msgspec.Struct, frozen=True):
    """A session and its file.

    Attributes:
        inputs: the file's own specs where it is an ONNX file: engines drop names of dims and ranges of values.
        precision: the coarser of the file's precision and the rounding its target asks for.
        onnx: the ONNX file, None where the session runs something else.
        preprocessing: what the model's own record says turns raw data into its inputs.
        state: pairs of input and output that carry state.
    """

    name: str
    session: Session
    inputs: tuple[TensorSpec, ...]
    precision: str
    onnx: Path | None
    preprocessing: Preprocessing | None = None
    state: dict[str, str] = {}


@contextmanager
def open_model(model: str | os.PathLike[str] | Session, target: str | Target) -> Iterator[Opened]:
    """Open a path on ``target`` and close it again; a session that is open already stays open and keeps its target."""
    if isinstance(model, Session):
        yield _describe(model)
        return
    chosen = target if isinstance(target, Target) else registry.target(target)
    _refuse_old_opsets(model)
    with load(model, chosen) as session:
        yield _describe(session)


def _refuse_old_opsets(model: str | os.PathLike[str]) -> None:
    """Engines answer an opset they do not run with pages of text; the graph's own facts need one line."""
    if Path(model).suffix == ".onnx":
        from toolkit.graph.facts import facts, require_runnable

        require_runnable(facts(model), model)


def _describe(session: Session) -> Opened:
    path = Path(session.model)
    rounding = session.target.inference_precision
    if path.suffix != ".onnx" or not path.is_file():
        return Opened(session.model, session, session.inputs, rounding, None, session.preprocessing)
    from toolkit.graph.facts import facts

    known = facts(path)
    precision = rounding if rounding in ("bfloat16", "float16") else known.precision
    text = known.metadata.get("toolkit.preprocessing")
    preprocessing = Preprocessing.from_json(text, where=path) if text else session.preprocessing
    return Opened(session.model, session, known.inputs, precision, path, preprocessing, _pairs(known.metadata, path))


def _pairs(metadata: Mapping[str, str], path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(metadata.get("toolkit.state", "{}"), type=dict[str, str])
    except msgspec.DecodeError as exc:
        raise InvalidModel("the metadata entry 'toolkit.state' does not hold", where=path, got=exc) from exc
