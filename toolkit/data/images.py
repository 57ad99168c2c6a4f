"""Folders of images, decoded one block at a time by Pillow into ``(H, W, 3) uint8`` RGB."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np

from toolkit.data.source import ANONYMOUS, LABELS, Block, common_length, hash_files
from toolkit.errors import InvalidData, MissingDependency
from toolkit.tensors import Array, nearest

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
# "0042_tench.jpg" is class 42; a bare "000000000139.jpg" is a photograph's number, not a class.
NUMBERED = re.compile(r"^(\d+)[ _-]")


def image_files(folder: Path) -> list[Path]:
    """Images of ``folder`` and of its direct sub-folders, in order."""
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.suffix.lower() in SUFFIXES]
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


@final
class ImageFolder:
    """Images whose class is their sub-folder, or the number their file name starts with; else they have no labels.

    Args:
        folder: where they are.
        labels: the model's class names; a sub-folder that is not a number must be one of them. Without class names,
            sub-folders count in the order of their names.
    """

    def __init__(self, folder: str | Path, labels: Sequence[str] = ()) -> None:
        self.folder, self.name = Path(folder), str(folder)
        self._files = image_files(self.folder)
        self.count = common_length({"images": len(self._files)}, folder)
        self.class_names: tuple[str, ...] = ()
        self._labels = self._find_labels(labels)
        self.columns = (ANONYMOUS, LABELS) if self._labels else (ANONYMOUS,)
        self.constants: dict[str, Array] = {}
        self.state: dict[str, str] = {}

    def _find_labels(self, labels: Sequence[str]) -> list[int]:
        classes = sorted({path.parent.name for path in self._files if path.parent != self.folder})
        if not classes:
            numbers = [NUMBERED.match(path.name) for path in self._files]
            return [int(match[1]) for match in numbers if match] if all(numbers) else []
        stray = next((path for path in self._files if path.parent == self.folder), None)
        if stray is not None:
            raise InvalidData("an image is in no class folder while others are", where=self.folder, got=stray.name)
        index = {name: self._class(name, classes, labels) for name in classes}
        return [index[path.parent.name] for path in self._files]

    def _class(self, name: str, classes: Sequence[str], labels: Sequence[str]) -> int:
        if all(other.isdigit() for other in classes):
            return int(name)
        if not labels:
            self.class_names = tuple(classes)
            return classes.index(name)
        if name not in labels:
            raise InvalidData("no class of the model", where=self.folder / name, expected=nearest(name, labels))
        return labels.index(name)

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        for start in range(0, len(self._files), size):
            block: Block = {}
            if ANONYMOUS in columns:
                block[ANONYMOUS] = [read_image(path) for path in self._files[start : start + size]]
            if LABELS in columns and self._labels:
                block[LABELS] = np.array(self._labels[start : start + size], np.int64)
            yield block

    def sha256(self) -> str:
        return hash_files(self.folder, self._files)


def read_image(path: Path) -> Array:
    """One image as ``(H, W, 3) uint8`` RGB, turned the way its EXIF tag says.

    Raises:
        InvalidData: not an image, truncated, or of a size that no photograph has.
        MissingDependency: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as exc:
        raise MissingDependency.of("Pillow", "images", "reading images") from exc
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise InvalidData("not a whole image", where=path, got=exc) from exc
