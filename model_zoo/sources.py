"""Where training and test samples of an entry come from: the bundled digits, or a path of the user's."""

from __future__ import annotations

from pathlib import Path

from toolkit.data import Dataset, from_iterable, open_data
from toolkit.data.idx import image_parts
from toolkit.errors import InvalidData, UsageError

from . import digits
from .catalogue import DIGITS
from .entry import ZooEntry

# Of data that come as one set, this share is kept for testing.
TEST_SHARE = 0.2
# Pairs of files in one folder that are a training and a test set, in order of preference.
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "t10k", "validation", "val")


def training_data(entry: ZooEntry, path: Path | None, batch_size: int = 256) -> tuple[Dataset, Dataset]:
    """Training and test samples of ``entry``.

    Args:
        entry: what they are for.
        path: None for the bundled digits; a folder with a training and a test set (IDX, .npz or image folders); or one
            set of any kind that the toolkit reads, of which a fixed random fifth is kept for testing.

    Raises:
        UsageError: the entry has no bundled data and no path is given.
        InvalidData, FileProblem: the path does not hold what the entry needs.
    """
    if path is None:
        return _bundled(entry, batch_size)
    pair = _pair(path)
    if pair is None:
        data = _open(entry, path, batch_size)
        train, test = data.split(1 - TEST_SHARE, seed=0)
        return train, test
    return _open(entry, pair[0], batch_size), _open(entry, pair[1], batch_size)


def _bundled(entry: ZooEntry, batch_size: int) -> tuple[Dataset, Dataset]:
    if entry.dataset != DIGITS:
        raise UsageError("no data come with it", where=f"zoo:{entry.name}", next_step=f"--data: {entry.dataset}")
    splits = digits.splits()
    train, test = (
        from_iterable(
            [splits[name]],
            inputs=entry.inputs,
            preprocessing=entry.preprocessing,
            batch_size=batch_size,
            name=f"digits {name}",
        )
        for name in ("train", "test")
    )
    return train, test


def _open(entry: ZooEntry, path: Path, batch_size: int) -> Dataset:
    return open_data(
        path, inputs=entry.inputs, preprocessing=entry.preprocessing, batch_size=batch_size, labels=entry.labels
    )


def _pair(path: Path) -> tuple[Path, Path] | None:
    """The training and the test set in a folder; None where ``path`` is one set itself."""
    if not path.is_dir():
        return None
    sets = image_parts(path) or {item.stem: item for item in sorted(path.iterdir()) if item.suffix in ("", ".npz")}
    train, test = (next((sets[name] for name in names if name in sets), None) for names in (TRAIN_NAMES, TEST_NAMES))
    if train is not None and test is not None:
        return train, test
    if image_parts(path) and len(sets) > 1:
        raise InvalidData("which set is for training?", where=path, got=sorted(sets), expected="names train and test")
    return None
