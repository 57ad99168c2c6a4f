"""Keys of what is cached for a model: a hash over the file, the weights beside it, the target and whatever else counts.

Two models may share one ``.onnx`` byte for byte and differ in the weights that it keeps elsewhere.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from toolkit.errors import InvalidModel
from toolkit.stamps import known_sha256
from toolkit.targets import Target


def cache_key(model: Path, target: Target, *facts: object) -> str:
    """Hex digest of ``model``, its weights, what ``target`` asks of the engine, and ``facts`` (versions, hardware).

    Raises:
        InvalidModel: not an ONNX file, or an external file is missing.
    """
    return form_key(model_digest(model), target, *facts)


def form_key(digest: str, target: Target, *facts: object) -> str:
    """Like :func:`cache_key` for a model whose :func:`model_digest`, or another hash of all its files, is known."""
    asked = msgspec.to_builtins(target)
    for label in ("name", "description", "precisions"):
        del asked[label]
    return hashlib.sha256(msgspec.json.encode((digest, asked, facts), order="sorted")).hexdigest()


def model_digest(model: Path) -> str:
    """Hex digest of ``model`` and the files that hold its weights: those it names, or the .bin of an OpenVINO IR."""
    from toolkit.onnxfile.reading import external_files

    digest = hashlib.sha256(known_sha256(model).encode())
    for location in (f"{model.stem}.bin",) if model.suffix == ".xml" else external_files(model):
        path = model.parent / location
        if not path.is_file():
            raise InvalidModel("the model's external data is missing", where=model, got=location)
        digest.update(f"{location}\0{known_sha256(path)}".encode())
    return digest.hexdigest()
