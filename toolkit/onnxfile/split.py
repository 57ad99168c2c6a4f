"""Move a model's large weights out of the ONNX file, so that they can be mapped, and shared with other models.

The graph's own initializers are moved; tensors of attributes and subgraphs stay, as engines read some of them early.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from toolkit.onnxfile.schema import Tensor
from toolkit.onnxfile.tensors import External, TensorFacts, inside, read_tensor
from toolkit.onnxfile.wire import BYTES, Content, Field, encode_bytes, encode_number, encode_varint, fields, mapped

_GRAPH, _INITIALIZER = 7, 5
_EXTERNAL = 1
_BLOCK = 1 << 20


class Weight(NamedTuple):
    """A large initializer: which field of the graph it is (by the place of its tag), and where its bytes are."""

    tag: int
    name: str
    file: Path
    offset: int
    size: int

    def digest(self) -> str:
        """SHA-256 of its bytes."""
        found = hashlib.sha256()
        with self.file.open("rb") as handle:
            for block in _blocks(handle, self.offset, self.size):
                found.update(block)
        return found.hexdigest()

    def copy_to(self, output: BinaryIO) -> None:
        with self.file.open("rb") as handle:
            for block in _blocks(handle, self.offset, self.size):
                output.write(block)


def _blocks(handle: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    handle.seek(offset)
    while size > 0:
        block = handle.read(min(_BLOCK, size))
        if not block:
            raise ValueError("the file of weights ends too early")
        size -= len(block)
        yield block


def large_weights(model: Path, smallest: int) -> list[Weight]:
    """The initializers of ``model`` of at least ``smallest`` bytes, inside it or in external data.

    Raises:
        ValueError, IndexError: the file does not hold together (see :mod:`toolkit.onnxfile.check`).
    """
    with mapped(model) as content:
        found = [_weight(model, field, read_tensor(content, field.start, field.end)) for field in _tensors(content)]
    return [weight for weight in found if weight is not None and weight.size >= smallest]


def _tensors(content: Content) -> list[Field]:
    return [
        field
        for graph in fields(content, 0, len(content))
        if graph.number == _GRAPH and graph.wire == BYTES
        for field in fields(content, graph.start, graph.end)
        if field.number == _INITIALIZER and field.wire == BYTES
    ]


def _weight(model: Path, field: Field, tensor: TensorFacts) -> Weight | None:
    if tensor.size_bytes is None:
        return None
    if tensor.external is not None:
        path = inside(tensor.external.location, model.parent)
        assert path is not None
        return Weight(field.tag, tensor.name, path, tensor.external.offset, tensor.size_bytes)
    if tensor.raw is None:
        return None
    return Weight(field.tag, tensor.name, model, tensor.raw.start, tensor.size_bytes)


def write_split(model: Path, output: Path, places: Mapping[int, External]) -> None:
    """Write ``model`` at ``output`` with the initializers at the tags in ``places`` referring to where those say."""
    with mapped(model) as content, output.open("wb") as target:
        for field in fields(content, 0, len(content)):
            if field.number == _GRAPH and field.wire == BYTES:
                pieces = [_moved(content, part, places) for part in fields(content, field.start, field.end)]
                target.write(encode_varint(_GRAPH << 3 | BYTES) + encode_varint(sum(map(len, pieces))))
                target.writelines(pieces)
            else:
                target.write(content[field.tag : field.end])


def _moved(content: Content, field: Field, places: Mapping[int, External]) -> bytes:
    place = places.get(field.tag)
    if place is None or field.number != _INITIALIZER:
        return content[field.tag : field.end]
    dropped = (Tensor.RAW, Tensor.EXTERNAL, Tensor.LOCATION)
    kept = b"".join(
        content[part.tag : part.end] for part in fields(content, field.start, field.end) if part.number not in dropped
    )
    entries = {"location": place.location, "offset": str(place.offset), "length": str(place.length)}
    reference = b"".join(
        encode_bytes(Tensor.EXTERNAL, encode_bytes(1, key.encode()) + encode_bytes(2, value.encode()))
        for key, value in entries.items()
    )
    return encode_bytes(_INITIALIZER, kept + reference + encode_number(Tensor.LOCATION, _EXTERNAL))
