"""Folders of ``.npy`` files: an unpacked .npz, where a column may also be a folder with one file per sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import final

import numpy as np

from toolkit.data.npz import read_header
from toolkit.data.source import ANONYMOUS, STATE, Block, Column, common_length, hash_files, state_pairs
from toolkit.errors import InvalidData
from toolkit.files import existing_file
from toolkit.tensors import Array


def open_array(path: Path) -> Array:
    """A ``.npy`` file, memory-mapped; arrays without axes are read.

    Raises:
        InvalidData: an object array, truncated, or not a .npy.
    """
    existing_file(path, "data file")
    try:
        with path.open("rb") as stream:
            shape, _, _ = read_header(stream, path)
        return np.asarray(np.load(path, mmap_mode="r" if 0 not in shape and shape else None, allow_pickle=False))
    except (ValueError, EOFError, SyntaxError) as exc:
        raise InvalidData("not a whole .npy file", where=path, got=exc, next_step="write or copy it again") from exc


@final
class NpyFolder:
    """``NAME.npy`` holds all samples of a column; ``NAME/*.npy`` one each, in order of their names."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.name = Path(folder), str(folder)
        arrays = {path.stem: open_array(path) for path in sorted(self.folder.glob("*.npy"))}
        self._samples = {
            path.name: sorted(path.glob("*.npy")) for path in sorted(self.folder.iterdir()) if any(path.glob("*.npy"))
        }
        for name in arrays.keys() & self._samples.keys():
            raise InvalidData("a column is there twice", where=folder, got=f"{name}.npy and {name}/")
        self.state = state_pairs(arrays.pop(STATE).ravel().tolist(), folder) if STATE in arrays else {}
        self.constants = {name: array for name, array in arrays.items() if not array.ndim}
        self._arrays = {name: array for name, array in arrays.items() if array.ndim}
        lengths = {name: len(array) for name, array in self._arrays.items()}
        lengths |= {name: len(files) for name, files in self._samples.items()}
        self.count = common_length(lengths, folder)
        self.columns = tuple(lengths)

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        for start in range(0, self.count, size):
            yield {name: self._read(name, start, start + size) for name in self.columns if name in columns}

    def _read(self, name: str, start: int, stop: int) -> Column:
        if name in self._arrays:
            return np.array(self._arrays[name][start:stop])
        return [np.array(open_array(path)) for path in self._samples[name][start:stop]]

    def sha256(self) -> str:
        return hash_files(self.folder, [*self.folder.glob("*.npy"), *self.folder.glob("*/*.npy")])


@final
class NpyFile:
    """One ``.npy`` file: a single column without a name, and no labels."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.name = Path(path), str(path)
        self._array = open_array(self.path)
        if not self._array.ndim:
            raise InvalidData("holds no samples", where=path, got="an array without axes")
        self.count = common_length({"": len(self._array)}, path)
        self.columns = (ANONYMOUS,)
        self.constants: dict[str, Array] = {}
        self.state: dict[str, str] = {}

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        for start in range(0, self.count, size):
            yield {ANONYMOUS: np.array(self._array[start : start + size])} if ANONYMOUS in columns else {}

    def sha256(self) -> str:
        return hash_files(self.path.parent, [self.path])
