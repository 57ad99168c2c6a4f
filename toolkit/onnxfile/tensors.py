"""One TensorProto on the wire: what it declares, where its bytes are, and whether the two agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.onnxfile.schema import BITS, ENTRY_BYTES, TEXT_TYPE, TYPED, Tensor
from toolkit.onnxfile.wire import BYTES, VARINT, Content, Field, fields, signed, varint

MAX_RANK = 64
# 2 to the 48 bytes: no file holds more, and products beyond it would not stay in 64 bits.
MAX_BYTES = 1 << 48
# Longer numbers and names in external data are not ones that a writer of ONNX makes.
_MAX_TEXT = 4096


class External(NamedTuple):
    """Bytes outside the model file: ``length`` None means to the end of the file."""

    location: str
    offset: int
    length: int | None


class TensorFacts(NamedTuple):
    """What a tensor says of itself. ``size_bytes`` is None for text, ``data`` the fields that hold elements."""

    name: str
    kind: int
    dims: tuple[int, ...]
    size_bytes: int | None
    raw: Field | None
    data: Sequence[Field]
    external: External | None

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


def read_tensor(content: Content, start: int, end: int) -> TensorFacts:
    """The facts of the TensorProto in ``content[start:end]``.

    Raises:
        ValueError: in one clause, what does not hold: dims, type, sizes, or a reference to external data.
    """
    dims: list[int] = []
    name, kind, place = "", 0, 0
    raw: Field | None = None
    data: list[Field] = []
    entries: dict[str, str] = {}
    for field in fields(content, start, end):
        if field.number == Tensor.DIMS:
            dims += _numbers(content, field)
        elif field.number == Tensor.TYPE:
            kind = field.value
        elif field.number == Tensor.NAME:
            name = content[field.start : field.end].decode()
        elif field.number == Tensor.RAW and field.wire == BYTES:
            raw = field
        elif field.number == Tensor.EXTERNAL and field.wire == BYTES:
            key, value = _entry(content, field)
            if key in entries:
                raise ValueError(f"'{key}' of its external data stands there twice")
            entries[key] = value
        elif field.number == Tensor.LOCATION:
            place = field.value
        elif field.number in _DATA_FIELDS:
            data.append(field)
    external = _external(entries) if place == 1 else None
    return TensorFacts(name, kind, _dims(dims), _size(kind, _dims(dims)), raw, data, external)


_DATA_FIELDS = frozenset(field for field, _ in TYPED.values())


def _numbers(content: Content, field: Field) -> list[int]:
    """The entries of a repeated integer field, which may stand one by one or packed."""
    if field.wire == VARINT:
        return [signed(field.value)]
    if field.wire != BYTES or field.end - field.start > 10 * MAX_RANK:
        raise ValueError("more dims than any tensor has")
    found, at = [], field.start
    while at < field.end:
        value, at = varint(content, at)
        found.append(signed(value))
    return found


def _dims(dims: list[int]) -> tuple[int, ...]:
    if len(dims) > MAX_RANK:
        raise ValueError(f"{len(dims)} dims, more than any tensor has")
    if any(dim < 0 for dim in dims):
        raise ValueError(f"a negative dim in {dims[:8]}")
    return tuple(dims)


def _size(kind: int, dims: tuple[int, ...]) -> int | None:
    elements = math.prod(dims)
    if kind == TEXT_TYPE:
        return None
    if kind not in BITS:
        raise ValueError(f"no such element type: {kind}")
    size = (elements * BITS[kind] + 7) // 8
    if size > MAX_BYTES:
        raise ValueError(f"dims {list(dims)[:8]} claim {size} bytes")
    return size


def _entry(content: Content, field: Field) -> tuple[str, str]:
    key = value = ""
    for part in fields(content, field.start, field.end):
        if part.wire != BYTES:
            continue
        if part.end - part.start > _MAX_TEXT:
            raise ValueError("an entry of its external data is too long")
        if part.number == 1:
            key = content[part.start : part.end].decode()
        elif part.number == 2:
            value = content[part.start : part.end].decode()
    return key, value


def _external(entries: dict[str, str]) -> External:
    location = entries.get("location", "")
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key, "0" if key == "offset" else "")
        if text and not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ValueError(f"external data with {key} {text[:40]!r}")
        numbers[key] = int(text) if text else None
    return External(location, numbers["offset"] or 0, numbers["length"])


def check_data(content: Content, tensor: TensorFacts, folder: Path | None) -> None:
    """Check that the tensor's elements are there, in full and nothing else, before anyone allocates room for them.

    Raises:
        ValueError: in one clause, what does not hold.
    """
    if tensor.external is not None:
        _check_external(tensor, tensor.external, folder)
    elif tensor.raw is not None:
        found = tensor.raw.end - tensor.raw.start
        if found != tensor.size_bytes:
            raise ValueError(
                f"dims {list(tensor.dims)} of type {tensor.kind} need {tensor.size_bytes} bytes, not {found}"
            )
    else:
        _check_typed(content, tensor)


def _check_typed(content: Content, tensor: TensorFacts) -> None:
    number, each = TYPED[tensor.kind]
    found = sum(_count(content, field) for field in tensor.data if field.number == number)
    wanted = [tensor.elements * each]
    if BITS.get(tensor.kind, 8) < 8:  # narrow elements may share an entry
        per_byte = 8 // BITS[tensor.kind]
        wanted.append(-(-tensor.elements // per_byte))
    if found not in wanted:
        raise ValueError(f"dims {list(tensor.dims)} of type {tensor.kind} need {wanted[0]} entries, not {found}")


def _count(content: Content, field: Field) -> int:
    """Entries in a data field: one, or those that are packed in it."""
    if field.wire != BYTES or field.number == Tensor.STRINGS:
        return 1
    size = field.end - field.start
    if (width := ENTRY_BYTES.get(field.number)) is not None:
        if size % width:
            raise ValueError("its data ends inside an element")
        return size // width
    # A varint ends at the byte whose highest bit is not set.
    return int(np.count_nonzero(np.frombuffer(content, np.uint8, size, field.start) < 0x80)) if size else 0


def _check_external(tensor: TensorFacts, external: External, folder: Path | None) -> None:
    path = inside(external.location, folder)
    if tensor.size_bytes is None:
        raise ValueError("text cannot be external data")
    if external.length not in (None, tensor.size_bytes):
        raise ValueError(
            f"dims {list(tensor.dims)} need {tensor.size_bytes} bytes, its external data has {external.length}"
        )
    if path is None:
        return
    size = path.stat().st_size
    if external.offset + tensor.size_bytes > size:
        raise ValueError(
            f"its external data ends at {external.offset + tensor.size_bytes}, '{external.location}' at {size}"
        )


def inside(location: str, folder: Path | None) -> Path | None:
    """The file that ``location`` names in ``folder``; None without a folder, when only the name is checked.

    Raises:
        ValueError: it names nothing, climbs out, is absolute, a link out of the folder, or no regular file.
    """
    parts = location.replace("\\", "/").split("/")
    if (
        not location
        or Path(location).is_absolute()
        or ":" in parts[0]
        or ".." in parts
        or parts[0] == ""
        or "\0" in location
    ):
        raise ValueError(f"its external data leaves the folder: {location[:80]!r}")
    if folder is None:
        return None
    path = folder / location
    try:
        if not path.is_file():
            raise ValueError(f"its external data is missing: {location[:80]!r}")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"its external data is a link out of the folder: {location[:80]!r}")
    except OSError as exc:
        raise ValueError(f"its external data cannot be read: {location[:80]!r}") from exc
    return path
