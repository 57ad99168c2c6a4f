"""Which model was measured: a digest of everything that opening it reads, and how large its files are.

Two records speak of the same model where their digests are equal, whatever the files are called.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import msgspec

from toolkit.files import sha256
from toolkit.profiler.models import Model
from toolkit.providers.fingerprint import model_digest

_WITH_WEIGHTS_BESIDE = (".onnx", ".xml")


def identified(models: Iterable[Model]) -> list[Model]:
    """``models`` with ``sha256`` and ``size_bytes`` filled in where nobody did before.

    Raises:
        InvalidModel: a file that holds its weights is missing.
    """
    return [_identified(model) for model in models]


def _identified(model: Model) -> Model:
    if model.sha256:
        return model
    digest = source_digest(model.path) if model.kind == "source" else file_digest(Path(model.path))
    return msgspec.structs.replace(model, sha256=digest, size_bytes=max(model.size_bytes, _size_bytes(model)))


def file_digest(path: Path) -> str:
    """Of a model file and the files that hold its weights."""
    return model_digest(path) if path.suffix in _WITH_WEIGHTS_BESIDE else sha256(path)


def source_digest(text: str) -> str:
    """Of the file or folder that a source's text names, and of the text where it names none, as ``zoo:NAME`` does.

    A module is found but not imported: its code is the worker's to run, not ours.
    """
    digest = hashlib.sha256(_function(text).encode())
    for path in _files(text):
        digest.update(f"\0{path.name}\0{sha256(path)}".encode())
    return digest.hexdigest()


def _function(text: str) -> str:
    """What of the text says more than a place: a path may be written in many ways."""
    return text.rpartition(":")[2] if _files(text) else text


def _files(text: str) -> Sequence[Path]:
    whole, place = Path(text), text.rpartition(":")[0]
    if whole.is_dir():
        return sorted(path for path in whole.rglob("*") if path.is_file())
    candidates = [whole, *([Path(place), _module_file(place)] if place else [])]
    return [path for path in candidates if path is not None and path.is_file()][:1]


def _module_file(name: str) -> Path | None:
    """The file of a dotted module, looked up without running the packages that it lies in."""
    search: Sequence[str] | None = sys.path
    origin: str | None = None
    for part in name.split("."):
        found = PathFinder.find_spec(part, search) if search is not None and part else None
        if found is None:
            return None
        origin, search = found.origin, found.submodule_search_locations
    return None if origin is None else Path(origin)


def _size_bytes(model: Model) -> int:
    if model.kind == "source":
        return sum(path.stat().st_size for path in _files(model.path))
    path = Path(model.path)
    weights = path.with_suffix(".bin")
    beside = weights.stat().st_size if path.suffix == ".xml" and weights.is_file() else 0
    return path.stat().st_size + beside
