"""``.npz`` archives, read row by row: stored members are memory-mapped, compressed ones decompressed as a stream."""

from __future__ import annotations

import io
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from toolkit.data.source import STATE, Block, common_length, numeric, state_pairs
from toolkit.errors import InvalidData
from toolkit.files import existing_file, sha256, write_atomic
from toolkit.tensors import Array

# What a damaged or truncated archive makes zipfile, zlib and numpy raise.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    ValueError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
)
# A constant or the list of state pairs is small; a member beyond this is not read at once.
MAX_CONSTANT_BYTES = 1 << 20


class Member:
    """One array of the archive: its header, and its rows as a stream."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._archive, self._info = archive, info
        self.name = info.filename.removesuffix(".npy")
        self.where = f"{archive.filename}: array '{self.name}'"
        with archive.open(info) as stream:
            self.shape, self.fortran, self.dtype = read_header(stream, self.where)
            self._offset = stream.tell()
        expected = self._offset + math.prod(self.shape) * self.dtype.itemsize
        if info.file_size != expected:
            raise InvalidData(
                "size and header disagree", where=self.where, got=f"{info.file_size} bytes", expected=expected
            )

    def whole(self) -> Array:
        """All of a small array."""
        if self._info.file_size > MAX_CONSTANT_BYTES:
            raise InvalidData("too large to be a constant", where=self.where, got=f"{self._info.file_size} bytes")
        return (
            np.concatenate(list(self.rows(1 << 20)))
            if self.shape
            else np.load(io.BytesIO(self._archive.read(self._info)))
        )

    def rows(self, size: int) -> Iterator[Array]:
        """Blocks of at most ``size`` rows."""
        if self._info.compress_type == zipfile.ZIP_STORED:
            yield from _mapped_rows(self._mapped(Path(str(self._archive.filename)), self._data_start()), size)
        elif self.fortran:
            # Rows of a column-major array lie scattered over the whole stream: only a seekable copy has them.
            with tempfile.TemporaryFile() as copy, self._archive.open(self._info) as stream:
                shutil.copyfileobj(stream, copy)
                yield from _mapped_rows(self._mapped(copy, self._offset), size)
        else:
            with self._archive.open(self._info) as stream:
                read_header(stream, self.where)
                for start in range(0, self.shape[0], size):
                    yield self._block(stream, min(size, self.shape[0] - start))

    def _mapped(self, file: Any, offset: int) -> Array:
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.memmap(file, self.dtype, "r", offset, self.shape, "F" if self.fortran else "C")

    def _data_start(self) -> int:
        """Where the array's bytes begin in the file.

        Source: PKWARE APPNOTE 4.3.7: a local header is 30 bytes, then name and extra field, whose lengths it ends with.
        """
        with Path(str(self._archive.filename)).open("rb") as file:
            file.seek(self._info.header_offset)
            name, extra = struct.unpack("<26xHH", file.read(30))
        return int(self._info.header_offset + 30 + name + extra + self._offset)

    def _block(self, stream: IO[bytes], rows: int) -> Array:
        shape = (rows, *self.shape[1:])
        content = stream.read(math.prod(shape) * self.dtype.itemsize)
        return np.frombuffer(content, self.dtype).reshape(shape)


def read_header(stream: IO[bytes], where: object) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether column-major, and dtype of a ``.npy`` stream, which is left at its first value.

    Raises:
        InvalidData: an object array, or not a .npy.
    """
    version = np.lib.format.read_magic(stream)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise InvalidData("unknown .npy version", where=where, got=version, expected="1.0 or 2.0")
    shape, fortran, dtype = reader(stream)
    numeric(dtype, where)
    return shape, fortran, dtype


def _mapped_rows(array: Array, size: int) -> Iterator[Array]:
    for start in range(0, len(array), size):
        yield np.array(array[start : start + size])


@final
class NpzSource:
    """One archive: each row of each array is a sample; arrays without axes are constants."""

    def __init__(self, path: str | Path) -> None:
        self.path = existing_file(path, "data file")
        self.name = str(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = self._members(archive)
                self.state = state_pairs(members[STATE].whole().ravel().tolist(), path) if STATE in members else {}
                self.constants = {name: member.whole() for name, member in members.items() if not member.shape}
        except DAMAGE as exc:
            raise self._damaged(exc) from exc
        lengths = {name: item.shape[0] for name, item in members.items() if item.shape and name != STATE}
        self.count = common_length(lengths, path)
        self.columns = tuple(lengths)

    def _members(self, archive: zipfile.ZipFile) -> dict[str, Member]:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                raise InvalidData("not an .npz: a member is no array", where=self.path, got=info.filename)
        return {member.name: member for member in (Member(archive, info) for info in archive.infolist())}

    def _damaged(self, exc: BaseException) -> InvalidData:
        return InvalidData("not a whole .npz file", where=self.path, got=exc, next_step="write or copy it again")

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = self._members(archive)
                names = [name for name in self.columns if name in columns]
                for parts in zip(*(members[name].rows(size) for name in names), strict=True):
                    yield dict(zip(names, parts, strict=True))
        except DAMAGE as exc:
            raise self._damaged(exc) from exc

    def sha256(self) -> str:
        return sha256(self.path)


def write_npz(path: str | Path, arrays: Mapping[str, Array], *, state: Mapping[str, str] | None = None) -> Path:
    """Write samples in the layout of docs/data.md, whole or not at all; the same arrays give the same bytes.

    Args:
        path: the file.
        arrays: one array per name, leading axis = samples; ``labels`` and ``sequence`` have their meaning.
        state: model input to the output of the previous step that feeds it.
    """
    common_length({name: len(array) for name, array in arrays.items() if array.ndim}, path)
    content = io.BytesIO()
    extra = {STATE: np.array([f"{name}={output}" for name, output in state.items()])} if state else {}
    np.savez(
        content, allow_pickle=False, **{name: np.asarray(array, order="C") for name, array in arrays.items()}, **extra
    )
    return write_atomic(path, content.getvalue())
