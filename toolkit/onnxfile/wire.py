"""The protobuf wire format, read from a mapped file without any package and without copying what is skipped.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LARGEST = 1 << 64

Content = bytes | mmap.mmap


class Field(NamedTuple):
    """One field: bytes ``start`` to ``end`` are its content, ``tag`` is where its tag begins.

    ``value`` is the number of a varint; the other kinds have 0.
    """

    number: int
    wire: int
    tag: int
    start: int
    end: int
    value: int


def fields(content: Content, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``content[at:end]``.

    Raises:
        ValueError: the bytes are no message: a field runs past the end, an unknown wire type, a number that is too
            long. IndexError: the content ends inside a number.
    """
    while at < end:
        tag = at
        key, at = varint(content, at)
        wire, number, value, start = key & 7, key >> 3, 0, at
        if not 0 < number < 1 << 29:
            raise ValueError(f"no such field: {number}")
        if wire == VARINT:
            value, at = varint(content, at)
        elif wire == BYTES:
            size, start = varint(content, at)
            at = start + size
        elif wire in _FIXED_SIZES:
            at += _FIXED_SIZES[wire]
        else:
            raise ValueError(f"no such wire type: {wire}")
        if at > end:
            raise ValueError("a field runs past the end")
        yield Field(number, wire, tag, start, at, value)


def varint(content: Content, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where the next byte is."""
    byte = content[at]
    if byte < 0x80:  # most are this short
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = content[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a number runs too long")
    if value >= _LARGEST:
        raise ValueError("a number runs too long")
    return value, at + 1


def signed(value: int) -> int:
    """A varint of a signed type: protobuf writes negative numbers as their 64-bit complement."""
    return value - _LARGEST if value >= _LARGEST >> 1 else value


def encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_bytes(number: int, content: bytes) -> bytes:
    """A field of bytes: tag, size, content."""
    return encode_varint(number << 3 | BYTES) + encode_varint(len(content)) + content


def encode_number(number: int, value: int) -> bytes:
    """A field of a number of 0 or more."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value)


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The content of a file that is not empty, mapped for reading."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
