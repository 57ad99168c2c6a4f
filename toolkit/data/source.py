"""What every kind of data file looks like to a dataset: named columns, read in blocks of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from toolkit.errors import InvalidData
from toolkit.files import sha256
from toolkit.tensors import Array

Column = Array | list[Any]
"""Rows of one name: an array whose leading axis counts samples, or a list where samples differ in shape."""
Block = dict[str, Column]

# Column names that are no model inputs.
LABELS, SEQUENCE, STATE = "labels", "sequence", "state_pairs"
RESERVED = (LABELS, SEQUENCE, STATE)
# The name of the only column of a source that names none (images, IDX, bare arrays) until somebody knows better.
ANONYMOUS = ""


class Source(Protocol):
    """Rows that can be read again from the start. ``count`` is None where only reading them all would tell."""

    @property
    def name(self) -> str: ...

    @property
    def count(self) -> int | None: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, ``labels`` and ``sequence`` among them when there."""
        ...

    @property
    def constants(self) -> Mapping[str, Array]:
        """Arrays without a sample axis, fed as they are with every batch."""
        ...

    @property
    def state(self) -> Mapping[str, str]:
        """Model input to the output of the previous step that feeds it."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes where labels are positions among them, as in folders named after classes; else empty."""
        ...

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        """Blocks of at most ``size`` rows of ``columns``, in order."""
        ...

    def sha256(self) -> str | None:
        """Hash of the content, None where there is none to hash."""
        ...


def state_pairs(values: Iterable[Any], where: object) -> dict[str, str]:
    """Read ``input=output`` texts.

    Raises:
        InvalidData: an item is not of that form.
    """
    pairs: dict[str, str] = {}
    for value in values:
        name, separator, output = str(value).partition("=")
        if not (separator and name and output):
            raise InvalidData("cannot read a state pair", where=where, got=repr(str(value)), expected="'INPUT=OUTPUT'")
        pairs[name] = output
    return pairs


def common_length(lengths: Mapping[str, int], where: object) -> int:
    """The number of samples, which all columns share.

    Raises:
        InvalidData: they do not, there is no column, or no sample.
    """
    if not lengths:
        raise InvalidData("holds no samples", where=where, expected="arrays named like the model's inputs")
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InvalidData("arrays hold different numbers of samples", where=where, got=got)
    count = next(iter(lengths.values()))
    if count == 0:
        raise InvalidData("holds no samples", where=where, got="arrays of length 0")
    return count


def numeric(dtype: Any, where: object) -> None:
    """Refuse what cannot be read without pickle or fed to a model.

    Raises:
        InvalidData: an object array, or a type that is neither number, boolean nor text.
    """
    if dtype.hasobject:
        raise InvalidData(
            "object arrays are not read, since that needs pickle",
            where=where,
            expected="numbers or text of a fixed-width type",
            next_step="save texts with dtype 'U', and samples of different shapes padded or as a folder of .npy",
        )
    if dtype.kind not in "biufcSU" or dtype.fields is not None:
        raise InvalidData("not an array of numbers or text", where=where, got=dtype)


def hash_files(root: Path, files: Sequence[Path]) -> str:
    """One hash over names and contents of ``files``."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()}\0{sha256(file)}\0".encode())
    return digest.hexdigest()
