"""An ONNX file walked as a protobuf, without the onnx package: is it whole, how old is it, where are its weights.

Only the few fields that can lead to external data are entered; weights inside the file are skipped unread.

Source: onnx/onnx.proto (field numbers), protobuf.dev/programming-guides/encoding (wire format).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import InvalidModel

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
_GRAPH, _OPSETS = 7, 8
_NUMBER = -1


def check_onnx(model: Path) -> None:
    """Check the outermost layer of an ONNX file, which costs microseconds: it ends where it says, and holds a graph.

    Raises:
        InvalidModel: it does not.
    """
    with model.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            numbers = {number for number, _, _ in _fields(content, 0, len(content))}
        except (IndexError, ValueError) as exc:
            raise _unreadable(model) from exc
    if _GRAPH not in numbers:
        raise _unreadable(model)


def opset(model: Path) -> int | None:
    """Version of the standard operators that an ONNX file was written with; None where it does not say.

    Raises:
        InvalidModel: not an ONNX file.
    """
    with model.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            for number, at, after in _fields(content, 0, len(content)):
                if number == _OPSETS:
                    found = {key: (low, high) for key, low, high in _fields(content, at, after)}
                    domain = content[slice(*found.get(_KEY, (0, 0)))]
                    if domain in (b"", b"ai.onnx") and _VALUE in found:
                        return found[_VALUE][0]
        except (IndexError, ValueError) as exc:
            raise _unreadable(model) from exc
    return None


def _unreadable(model: Path) -> InvalidModel:
    return InvalidModel(
        "not a readable ONNX file", where=model, next_step="export it again, or check that it copied whole"
    )


def external_files(model: Path) -> tuple[str, ...]:
    """Names of the files that hold weights of ``model``, relative to its folder, each once, in order of name.

    Raises:
        InvalidModel: not an ONNX file.
    """
    with model.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return tuple(sorted(set(_locations(content, 0, len(content), "model"))))
        except (IndexError, ValueError) as exc:
            raise _unreadable(model) from exc


def _locations(content: mmap.mmap, start: int, end: int, kind: str) -> Iterator[str]:
    for number, at, after in _fields(content, start, end):
        child = _FIELDS[kind].get(number)
        if child == "entry":
            entry = {key: content[low:high] for key, low, high in _fields(content, at, after) if high != _NUMBER}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode()
        elif child is not None:
            yield from _locations(content, at, after, child)


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of bytes; number, value and :data:`_NUMBER` of each that is a number."""
    while at < end:
        tag, at = _varint(content, at)
        size, wire = _FIXED_SIZES.get(tag & 7, 0), tag & 7
        if wire == _VARINT:
            value, at = _varint(content, at)
            yield tag >> 3, value, _NUMBER
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
