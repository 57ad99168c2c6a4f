"""Keys of what is cached for a model: a hash over the file, the weights beside it, the target and whatever else counts.

Two models may share one ``.onnx`` byte for byte and differ in the weights that it keeps elsewhere. To find those, the
file is walked as a protobuf, along the few fields that can lead to external data; weights inside it are skipped
unread. No onnx package is needed.

Source: onnx/onnx.proto (field numbers), protobuf.dev/programming-guides/encoding (wire format).
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from toolkit.errors import InvalidModel
from toolkit.files import sha256
from toolkit.targets import Target

# message: {field number: message it holds}; the ways from a model down to the external data of a tensor.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}
_KEY, _VALUE = 1, 2


def cache_key(model: Path, target: Target, *facts: object) -> str:
    """Hex digest of ``model``, its weights, what ``target`` asks of the engine, and ``facts`` (versions, hardware).

    Raises:
        InvalidModel: not an ONNX file, or an external file is missing.
    """
    asked = msgspec.to_builtins(target)
    for label in ("name", "description", "precisions"):
        del asked[label]
    return hashlib.sha256(msgspec.json.encode((model_digest(model), asked, facts), order="sorted")).hexdigest()


def model_digest(model: Path) -> str:
    """Hex digest of ``model`` and the files that hold its weights: those it names, or the .bin of an OpenVINO IR."""
    digest = hashlib.sha256(sha256(model).encode())
    for location in (f"{model.stem}.bin",) if model.suffix == ".xml" else external_files(model):
        path = model.parent / location
        if not path.is_file():
            raise InvalidModel("the model's external data is missing", where=model, got=location)
        digest.update(f"{location}\0{sha256(path)}".encode())
    return digest.hexdigest()


def external_files(model: Path) -> tuple[str, ...]:
    """Names of the files that hold weights of ``model``, relative to its folder, each once, in order of name.

    Raises:
        InvalidModel: not an ONNX file.
    """
    with model.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return tuple(sorted(set(_locations(content, 0, len(content), "model"))))
        except (IndexError, ValueError) as exc:
            raise InvalidModel("not a readable ONNX file", where=model) from exc


def _locations(content: mmap.mmap, start: int, end: int, kind: str) -> Iterator[str]:
    for number, at, after in _fields(content, start, end):
        child = _FIELDS[kind].get(number)
        if child == "entry":
            entry = {key: content[low:high] for key, low, high in _fields(content, at, after)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode()
        elif child is not None:
            yield from _locations(content, at, after, child)


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field that holds bytes; fields of other kinds are stepped over."""
    while at < end:
        tag, at = _varint(content, at)
        size, wire = _FIXED_SIZES.get(tag & 7, 0), tag & 7
        if wire == _VARINT:
            _, at = _varint(content, at)
        elif wire == _BYTES:
            size, at = _varint(content, at)
            if at + size > end:
                raise ValueError("a field runs past the end")
            yield tag >> 3, at, at + size
        elif not size:
            raise ValueError(f"no such wire type: {wire}")
        at += size


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number runs too long")
