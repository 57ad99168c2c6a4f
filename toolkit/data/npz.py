"""``.npz`` archives, read row by row as streams, whether their members are compressed or not."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import final

import numpy as np

from toolkit.data.npyformat import check_size, read_header, rows, whole
from toolkit.data.source import STATE, Block, common_length, state_pairs
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
            self.header = read_header(stream, self.where)
        check_size(self.header, info.file_size, self.where)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    def whole(self) -> Array:
        """All of a small array."""
        if self._info.file_size > MAX_CONSTANT_BYTES:
            raise InvalidData("too large to be a constant", where=self.where, got=f"{self._info.file_size} bytes")
        with self._archive.open(self._info) as stream:
            return whole(stream, read_header(stream, self.where))

    def rows(self, size: int) -> Iterator[Array]:
        """Blocks of at most ``size`` rows; the archive's checksum is verified at the end."""
        with self._archive.open(self._info) as stream:
            yield from rows(stream, read_header(stream, self.where), size)


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
        self.class_names: tuple[str, ...] = ()

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
