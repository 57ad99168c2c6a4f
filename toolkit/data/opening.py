"""Which reader a path means."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.data.dataset import DEFAULT_BATCH, Dataset
from toolkit.data.idx import IdxSource, image_parts
from toolkit.data.images import ImageFolder, image_files
from toolkit.data.iterable import Items, IterableSource
from toolkit.data.npy import NpyFile, NpyFolder
from toolkit.data.npz import NpzSource
from toolkit.data.source import Source
from toolkit.errors import FileProblem, InvalidData
from toolkit.files import existing_file
from toolkit.functions import load_function
from toolkit.preprocess import Preprocessing
from toolkit.tensors import TensorSpec

LAYOUTS = ".npz, .npy, a folder of .npy or of images, IDX files, or FILE.py:FUNCTION (docs/data.md)"


def open_data(
    path: str | os.PathLike[str],
    *,
    inputs: Sequence[TensorSpec] | None = None,
    preprocessing: Preprocessing | None = None,
    batch_size: int = DEFAULT_BATCH,
    limit: int | None = None,
    state: Mapping[str, str] | None = None,
    labels: Sequence[str] = (),
) -> Dataset:
    """Open samples from a file or folder; docs/data.md says how they are laid out.

    Args:
        path: an .npz or .npy file, an IDX file of images, a folder of .npy, of images or of IDX files, or
            ``file.py:function`` of a function without arguments that gives batches.
        inputs: the model's inputs; None feeds every array as it is.
        preprocessing: what makes inputs of raw arrays, as recorded with the model.
        batch_size: samples per batch; a size fixed in ``inputs`` wins.
        limit: read at most so many samples, the first ones.
        state: model input to the output of the previous step that feeds it.
        labels: the model's class names, for folders named after classes.

    Raises:
        FileProblem: nothing is there, or it cannot be read.
        InvalidData: it is no data, damaged, or lacks what the model needs.
    """
    source = open_source(os.fspath(path), labels)
    data = Dataset(source, inputs=inputs, preprocessing=preprocessing, batch_size=batch_size, state=state)
    return data if limit is None else data.take(0, limit)


def from_iterable(
    items: Items,
    *,
    inputs: Sequence[TensorSpec] | None = None,
    preprocessing: Preprocessing | None = None,
    batch_size: int = DEFAULT_BATCH,
    limit: int | None = None,
    state: Mapping[str, str] | None = None,
    name: str = "iterable",
) -> Dataset:
    """A dataset of batches that Python code gives: dictionaries of arrays, arrays, or ``(inputs, labels)`` pairs.

    Args:
        items: an iterable, or a function that gives a new one each time, which more than one pass needs.
        name: for messages.
        inputs, preprocessing, batch_size, limit, state: as in :func:`open_data`.

    Raises:
        InvalidData: not an iterable, or it holds nothing.
    """
    source = IterableSource(items, name)
    data = Dataset(source, inputs=inputs, preprocessing=preprocessing, batch_size=batch_size, state=state)
    return data if limit is None else data.take(0, limit)


def open_source(text: str, labels: Sequence[str] = ()) -> Source:
    """The reader for a path."""
    if re.search(r"\.py:\w+$", text):
        function: Callable[[], Any] = load_function(text, "--data")
        return IterableSource(function, text)
    path = Path(text)
    if path.is_dir():
        return _folder(path, labels)
    existing_file(path, "data file")
    if path.suffix == ".npz":
        return NpzSource(path)
    if path.suffix == ".npy":
        return NpyFile(path)
    if re.search(r"idx\d[-_.]ubyte(\.gz)?$", path.name):
        return IdxSource(path)
    raise InvalidData("not a kind of data file", where=path, expected=LAYOUTS)


def _folder(path: Path, labels: Sequence[str]) -> Source:
    try:
        parts = image_parts(path)
        arrays = any(path.glob("*.npy")) or any(path.glob("*/*.npy"))
    except OSError as exc:
        raise FileProblem("the folder cannot be read", where=path, got=exc.strerror) from exc
    if len(parts) > 1:
        names = ", ".join(str(part) for part in parts.values())
        raise InvalidData("several sets of images are in this folder", where=path, expected=f"one of: {names}")
    if parts:
        return IdxSource(next(iter(parts.values())))
    if arrays:
        return NpyFolder(path)
    if image_files(path):
        return ImageFolder(path, labels)
    raise InvalidData("nothing usable is in this folder", where=path, expected=LAYOUTS)
