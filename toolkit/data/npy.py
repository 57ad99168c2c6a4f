"""``.npy`` files alone, and folders of them: an unpacked .npz, where a column may also be a file per sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, final

from toolkit.data.npyformat import Header, check_size, read_header, rows, whole
from toolkit.data.source import ANONYMOUS, STATE, Block, Column, common_length, hash_files, state_pairs
from toolkit.errors import InvalidData
from toolkit.files import existing_file
from toolkit.tensors import Array


class NpyArray:
    """One file.

    Raises:
        InvalidData: an object array, truncated, or not a .npy.
    """

    def __init__(self, path: Path) -> None:
        self.path = existing_file(path, "data file")
        with path.open("rb") as stream:
            self.header = self._header(stream)
        check_size(self.header, path.stat().st_size, path)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    def _header(self, stream: IO[bytes]) -> Header:
        try:
            return read_header(stream, self.path)
        except (ValueError, EOFError, SyntaxError) as exc:
            raise InvalidData("not a .npy file", where=self.path, got=exc, next_step="write or copy it again") from exc

    def whole(self) -> Array:
        with self.path.open("rb") as stream:
            return whole(stream, self._header(stream))

    def rows(self, size: int) -> Iterator[Array]:
        with self.path.open("rb") as stream:
            yield from rows(stream, self._header(stream), size)


@final
class NpyFolder:
    """``NAME.npy`` holds all samples of a column; ``NAME/*.npy`` one each, in order of their names."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.name = Path(folder), str(folder)
        arrays = {path.stem: NpyArray(path) for path in sorted(self.folder.glob("*.npy"))}
        self._samples = {
            path.name: sorted(path.glob("*.npy")) for path in sorted(self.folder.iterdir()) if any(path.glob("*.npy"))
        }
        for name in arrays.keys() & self._samples.keys():
            raise InvalidData("a column is there twice", where=folder, got=f"{name}.npy and {name}/")
        self.state = state_pairs(arrays.pop(STATE).whole().ravel().tolist(), folder) if STATE in arrays else {}
        self.constants = {name: array.whole() for name, array in arrays.items() if not array.shape}
        self._arrays = {name: array for name, array in arrays.items() if array.shape}
        lengths = {name: array.shape[0] for name, array in self._arrays.items()}
        lengths |= {name: len(files) for name, files in self._samples.items()}
        self.count = common_length(lengths, folder)
        self.columns = tuple(lengths)
        self.class_names: tuple[str, ...] = ()

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        names = [name for name in self.columns if name in columns]
        for parts in zip(*(self._rows(name, size) for name in names), strict=True):
            yield dict(zip(names, parts, strict=True))

    def _rows(self, name: str, size: int) -> Iterator[Column]:
        if name in self._arrays:
            yield from self._arrays[name].rows(size)
            return
        files = self._samples[name]
        for start in range(0, len(files), size):
            yield [NpyArray(path).whole() for path in files[start : start + size]]

    def sha256(self) -> str:
        return hash_files(self.folder, [*self.folder.glob("*.npy"), *self.folder.glob("*/*.npy")])


@final
class NpyFile:
    """One ``.npy`` file: a single column without a name, and no labels."""

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._array = NpyArray(Path(path))
        if not self._array.shape:
            raise InvalidData("holds no samples", where=path, got="an array without axes")
        self.count = common_length({"": self._array.shape[0]}, path)
        self.columns = (ANONYMOUS,)
        self.constants: dict[str, Array] = {}
        self.state: dict[str, str] = {}
        self.class_names: tuple[str, ...] = ()

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        for part in self._array.rows(size):
            yield {ANONYMOUS: part} if ANONYMOUS in columns else {}

    def sha256(self) -> str:
        return hash_files(self._array.path.parent, [self._array.path])
