"""scikit-learn's bundled digits: 1797 images of 8×8 pixels with values 0…16, cut into three splits once and for all.

Choices (int8 ranges, which nodes stay float) are made on ``calibration``; figures are reported on ``test``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit.data import write_npz
from toolkit.errors import MissingDependency
from toolkit.tensors import Array

# Samples of each split, in this order, of an order shuffled by SEED; what is left belongs to the first.
SIZES = {"train": 997, "calibration": 300, "test": 500}
SEED = 20


def splits() -> dict[str, dict[str, Array]]:
    """``image (N, 8, 8) uint8`` and ``labels (N,) int64`` of each split.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise MissingDependency.of("scikit-learn", "zoo", "the bundled digits") from exc
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    parts = np.split(order, np.cumsum(list(SIZES.values()))[:-1])
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    return {name: {"image": images[part], "labels": labels[part]} for name, part in zip(SIZES, parts, strict=True)}


def write_splits(folder: Path) -> dict[str, Path]:
    """Write ``train.npz``, ``calibration.npz`` and ``test.npz`` with raw pixels; returns their paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: write_npz(folder / f"{name}.npz", arrays) for name, arrays in splits().items()}
