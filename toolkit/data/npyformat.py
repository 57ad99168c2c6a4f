"""The ``.npy`` format, read row by row from any stream, without pickle and without mapping the file.

A mapped file would count as memory of this process for every page that was touched; a stream costs one block.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import numpy as np

from toolkit.data.source import numeric
from toolkit.errors import InvalidData
from toolkit.tensors import Array


class Header(msgspec.Struct, frozen=True):
    """What a ``.npy`` says of itself; ``offset`` is where its values begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: Any
    offset: int

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return int(self.offset + math.prod(self.shape) * self.dtype.itemsize)


def read_header(stream: IO[bytes], where: object) -> Header:
    """Read the header; the stream is left at the first value.

    Raises:
        InvalidData: an object array, or a version of the format that there is not.
        ValueError, SyntaxError, EOFError: not a .npy at all.
    """
    version = np.lib.format.read_magic(stream)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise InvalidData("unknown .npy version", where=where, got=version, expected="1.0 or 2.0")
    shape, fortran, dtype = reader(stream)
    numeric(dtype, where)
    return Header(shape, fortran and len(shape) > 1, dtype, stream.tell())


def check_size(header: Header, size_bytes: int, where: object) -> None:
    """Refuse a header that promises another size than there is, before anything is allocated.

    Raises:
        InvalidData: they disagree.
    """
    if header.size_bytes != size_bytes:
        got, expected = f"{size_bytes} bytes", f"{header.size_bytes} for {header.dtype}{list(header.shape)}"
        raise InvalidData("size and header disagree; truncated?", where=where, got=got, expected=expected)


def rows(stream: IO[bytes], header: Header, size: int) -> Iterator[Array]:
    """Blocks of at most ``size`` rows from a stream that stands at the first value.

    Raises:
        ValueError: the stream ends too early.
    """
    if header.fortran:
        yield from _scattered_rows(stream, header, size)
        return
    for start in range(0, header.shape[0], size):
        shape = (min(size, header.shape[0] - start), *header.shape[1:])
        content = stream.read(math.prod(shape) * header.dtype.itemsize)
        yield np.frombuffer(content, header.dtype).reshape(shape).copy()  # writable, as engines and torch want it


def _scattered_rows(stream: IO[bytes], header: Header, size: int) -> Iterator[Array]:
    """Rows of a column-major array lie all over the stream: only a mapped copy gives them one by one."""
    if 0 in header.shape:
        yield np.empty(header.shape, header.dtype)
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        mapped: Array = np.memmap(copy, header.dtype, "r", 0, header.shape, "F")
        for start in range(0, len(mapped), size):
            yield np.array(mapped[start : start + size])


def whole(stream: IO[bytes], header: Header) -> Array:
    """All values at once, for arrays known to be small."""
    count = math.prod(header.shape)
    flat = np.frombuffer(stream.read(count * header.dtype.itemsize), header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")
