"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

Source: Y. LeCun, "The MNIST database": two zero bytes, a type, the number of axes, their sizes as big-endian 32-bit
integers, then the values, big-endian, row by row.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, cast, final

import numpy as np

from toolkit.data.source import ANONYMOUS, LABELS, Block, common_length, hash_files
from toolkit.errors import InvalidData
from toolkit.files import existing_file
from toolkit.tensors import Array

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IMAGES = re.compile(r"^(?P<part>.*?)[-_.]?images[-_.]idx(?P<axes>\d)[-_.]ubyte(?P<gzip>\.gz)?$")


class IdxFile:
    """One array, read as a stream of rows."""

    def __init__(self, path: Path) -> None:
        self.path = existing_file(path, "IDX file")
        with self._open() as stream:
            self.shape, self.dtype = self._header(stream)

    def _open(self) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(self.path)) if self.path.suffix == ".gz" else self.path.open("rb")

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
        start = self._read(stream, 4)
        if start[:2] != b"\0\0" or start[2] not in TYPES or not start[3]:
            raise InvalidData("not an IDX file", where=self.path, got=f"first bytes {start.hex()}")
        shape = struct.unpack(f">{start[3]}I", self._read(stream, 4 * start[3]))
        return shape, np.dtype(TYPES[start[2]])

    def rows(self, size: int) -> Iterator[Array]:
        with self._open() as stream:
            self._header(stream)
            for start in range(0, self.shape[0], size):
                shape = (min(size, self.shape[0] - start), *self.shape[1:])
                content = self._read(stream, math.prod(shape) * self.dtype.itemsize)
                yield np.frombuffer(content, self.dtype).reshape(shape).astype(self.dtype.newbyteorder("="))

    def _read(self, stream: IO[bytes], size: int) -> bytes:
        try:
            content = stream.read(size)
        except (OSError, EOFError, zlib.error) as exc:
            raise InvalidData("a damaged gzip file", where=self.path, got=exc) from exc
        if len(content) < size:
            raise InvalidData("a truncated IDX file", where=self.path, got=f"{len(content)} bytes", expected=size)
        return content


def image_parts(folder: Path) -> dict[str, Path]:
    """Image files of ``folder`` by the part they hold: ``train``, ``t10k`` …"""
    matches = ((IMAGES.match(path.name), path) for path in sorted(folder.iterdir()))
    return {match["part"]: path for match, path in matches if match}


@final
class IdxSource:
    """Images of one IDX file, and the labels of the file beside it, where there is one."""

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._images = IdxFile(Path(path))
        labels = self._labels_beside(Path(path))
        self._labels = None if labels is None else IdxFile(labels)
        lengths = {"images": self._images.shape[0]}
        if self._labels is not None:
            lengths[LABELS] = self._labels.shape[0]
        self.count = common_length(lengths, path)
        self.columns = (ANONYMOUS,) if self._labels is None else (ANONYMOUS, LABELS)
        self.constants: dict[str, Array] = {}
        self.state: dict[str, str] = {}
        self.class_names: tuple[str, ...] = ()

    def _labels_beside(self, path: Path) -> Path | None:
        stem = re.sub(r"images([-_.])idx\d", r"labels\1idx1", path.name).removesuffix(".gz")
        found = (path.with_name(name) for name in (stem, f"{stem}.gz"))
        return next((item for item in found if item != path and item.is_file()), None)

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        files = {ANONYMOUS: self._images, LABELS: self._labels}
        wanted = {name: file for name, file in files.items() if name in columns and file is not None}
        for parts in zip(*(file.rows(size) for file in wanted.values()), strict=True):
            yield dict(zip(wanted, parts, strict=True))

    def sha256(self) -> str:
        files = [item.path for item in (self._images, self._labels) if item is not None]
        return hash_files(self._images.path.parent, files)
