"""What an ONNX file says of itself, read without the onnx package: is it whole, how old is it, where are its weights.

Only the few fields that can lead to external data are entered; weights inside the file are skipped unread.

Source: onnx/onnx.proto (field numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import InvalidModel
from toolkit.onnxfile.wire import BYTES, Content, fields, mapped

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
_KEY, _VALUE = 1, 2
_GRAPH, _OPSETS = 7, 8


def check_onnx(model: Path) -> None:
    """Check the outermost layer of an ONNX file, which costs microseconds: it ends where it says, and holds a graph.

    Raises:
        InvalidModel: it does not.
    """
    with _opened(model) as content:
        if _GRAPH not in {field.number for field in fields(content, 0, len(content))}:
            raise ValueError("there is no graph in it")


def opset(model: Path) -> int | None:
    """Version of the standard operators that an ONNX file was written with; None where it does not say.

    Raises:
        InvalidModel: not an ONNX file.
    """
    with _opened(model) as content:
        for entry in fields(content, 0, len(content)):
            if entry.number == _OPSETS:
                found = {field.number: field for field in fields(content, entry.start, entry.end)}
                domain = content[found[_KEY].start : found[_KEY].end] if _KEY in found else b""
                if domain in (b"", b"ai.onnx") and _VALUE in found:
                    return found[_VALUE].value
    return None


def external_files(model: Path) -> tuple[str, ...]:
    """Names of the files that hold weights of ``model``, relative to its folder, each once, in order of name.

    Raises:
        InvalidModel: not an ONNX file.
    """
    with _opened(model) as content:
        return tuple(sorted(set(_locations(content, 0, len(content), "model"))))


@contextmanager
def _opened(model: Path) -> Iterator[Content]:
    try:
        with mapped(model) as content:
            yield content
    except (IndexError, ValueError) as exc:
        raise InvalidModel(
            "not a readable ONNX file", where=model, next_step="export it again, or check that it copied whole"
        ) from exc


def _locations(content: Content, start: int, end: int, kind: str) -> Iterator[str]:
    for field in fields(content, start, end):
        child = _FIELDS[kind].get(field.number) if field.wire == BYTES else None
        if child == "entry":
            pairs = fields(content, field.start, field.end)
            entry = {pair.number: content[pair.start : pair.end] for pair in pairs if pair.wire == BYTES}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode()
        elif child is not None:
            yield from _locations(content, field.start, field.end, child)
