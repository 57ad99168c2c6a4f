"""The steps of preprocessing: one frozen struct each, called with a batch, giving a batch.

Raw images are channels-last, ``(N, H, W, C)`` or ``(N, H, W)``; raw texts are arrays of strings ``(N,)``. The leading
axis always counts samples. A new step is a struct here and a member of :data:`Step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from toolkit.tensors import DTYPES, Array, nearest, numpy_dtype


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="step"):
    """One operation on a batch; fields are its settings. May raise what numpy raises; ``InputSteps`` says where."""


class Resize(_Step, frozen=True, tag="resize"):
    """Resample images to ``height`` × ``width``, or so that their shorter side is ``shortest`` (aspect kept).

    Antialiased when shrinking, as Pillow does it; integer images are rounded back to their type.

    Source: Pillow src/libImaging/Resample.c (filters, support scaled by the ratio); bicubic a = -0.5.
    """

    height: int = 0
    width: int = 0
    shortest: int = 0
    filter: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if not (self.shortest > 0 or (self.height > 0 and self.width > 0)):
            raise ValueError("resize wants height and width, or shortest, greater than 0")

    def __call__(self, batch: Array) -> Array:
        height, width = self._size(batch.shape[1], batch.shape[2])
        if (height, width) == batch.shape[1:3]:
            return batch
        rows, columns = (
            _resampling(size, wanted, self.filter)
            for size, wanted in zip(batch.shape[1:3], (height, width), strict=True)
        )
        result = np.einsum("wx,nyx...->nyw...", columns, batch.astype(np.float32), optimize=True)
        # Pillow stores the image between its two passes too, so integers are rounded and limited twice.
        result = np.einsum("hy,ny...->nh...", rows, _like(result, batch.dtype).astype(np.float32), optimize=True)
        return _like(result, batch.dtype)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if not self.shortest:
            return self.height, self.width
        # The longer side is cut, not rounded, as torchvision and transformers do.
        short, long = sorted((height, width))
        scaled = int(self.shortest * long / short)
        return (self.shortest, scaled) if height <= width else (scaled, self.shortest)


class CenterCrop(_Step, frozen=True, tag="center_crop"):
    """Cut ``height`` × ``width`` from the middle of images; smaller ones are surrounded with zeros."""

    height: int
    width: int

    def __call__(self, batch: Array) -> Array:
        for axis, size in ((1, self.height), (2, self.width)):
            missing = max(0, size - batch.shape[axis])
            batch = _padded(batch, axis, missing // 2, missing - missing // 2, 0)
            start = (batch.shape[axis] - size) // 2
            batch = batch.take(range(start, start + size), axis)
        return batch


class Grayscale(_Step, frozen=True, tag="grayscale"):
    """RGB images to one luma plane ``(N, H, W)``; images without a channel axis pass.

    Source: ITU-R BT.601 luma, the weights of Pillow's ``convert("L")``.
    """

    def __call__(self, batch: Array) -> Array:
        if batch.ndim == 3:
            return batch
        if batch.shape[3] == 1:
            return batch[..., 0]
        return _like(batch.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32), batch.dtype)


class Channels(_Step, frozen=True, tag="channels"):
    """Pick channels of images by index: ``[2, 1, 0]`` turns RGB into BGR, ``[0, 0, 0]`` grey into three planes."""

    order: tuple[int, ...]

    def __call__(self, batch: Array) -> Array:
        images = batch[..., None] if batch.ndim == 3 else batch
        return images[..., list(self.order)]


class Layout(_Step, frozen=True, tag="layout"):
    """Move axes, named by letters: ``NHWC`` to ``NCHW``. A letter that is new in ``to`` becomes an axis of size 1."""

    source: str
    to: str

    def __post_init__(self) -> None:
        letters = len(set(self.source)) == len(self.source) and len(set(self.to)) == len(self.to)
        if not letters or not set(self.source) <= set(self.to) or self.source[:1] != "N" or self.to[:1] != "N":
            raise ValueError("layout wants distinct letters that start with N, and all of source in to")

    def __call__(self, batch: Array) -> Array:
        if batch.ndim != len(self.source):
            raise ValueError(f"rank {batch.ndim} is not {self.source}")
        moved = batch.transpose([self.source.index(letter) for letter in self.to if letter in self.source])
        return np.expand_dims(moved, [axis for axis, letter in enumerate(self.to) if letter not in self.source])


class Scale(_Step, frozen=True, tag="scale"):
    """``x * factor + offset`` in float32."""

    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, batch: Array) -> Array:
        return batch.astype(np.float32) * np.float32(self.factor) + np.float32(self.offset)


class Normalize(_Step, frozen=True, tag="normalize"):
    """``(x - mean) / std`` in float32, one mean and std per entry of ``axis``, or one for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    axis: int = 1

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or 0 in self.std:
            raise ValueError("normalize wants as many std as mean, none of them 0")

    def __call__(self, batch: Array) -> Array:
        shape = [1] * batch.ndim
        if len(self.mean) > 1:
            shape[self.axis] = len(self.mean)
            if batch.shape[self.axis] != len(self.mean):
                raise ValueError(f"axis {self.axis} has {batch.shape[self.axis]} entries, not {len(self.mean)}")
        mean, std = (np.array(values, np.float32).reshape(shape) for values in (self.mean, self.std))
        return np.asarray((batch.astype(np.float32) - mean) / std)


class Clip(_Step, frozen=True, tag="clip"):
    """Limit values to ``low``…``high``."""

    low: float
    high: float

    def __call__(self, batch: Array) -> Array:
        return batch.clip(self.low, self.high).astype(batch.dtype)


class Cast(_Step, frozen=True, tag="cast"):
    """Change the type; floats lose their fraction on the way to integers."""

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.dtype == "string":
            raise ValueError(f"cast wants {nearest(self.dtype, DTYPES)}")

    def __call__(self, batch: Array) -> Array:
        return batch.astype(numpy_dtype(self.dtype))


class Reshape(_Step, frozen=True, tag="reshape"):
    """Give each sample this shape; -1 once for what is left."""

    shape: tuple[int, ...]

    def __call__(self, batch: Array) -> Array:
        return batch.reshape(len(batch), *self.shape)


class Pad(_Step, frozen=True, tag="pad"):
    """Fill ``axis`` up to ``length`` with ``value``; what is longer already passes (see :class:`Truncate`)."""

    axis: int
    length: int
    value: float = 0
    side: Literal["start", "end"] = "end"

    def __call__(self, batch: Array) -> Array:
        missing = max(0, self.length - batch.shape[self.axis])
        before = missing if self.side == "start" else 0
        return _padded(batch, self.axis, before, missing - before, self.value)


class Truncate(_Step, frozen=True, tag="truncate"):
    """Keep the first ``length`` entries of ``axis``."""

    axis: int
    length: int

    def __call__(self, batch: Array) -> Array:
        return batch.take(range(min(self.length, batch.shape[self.axis])), self.axis)


class Tokenize(_Step, frozen=True, tag="tokenize"):
    """Texts ``(N,)`` to token ids ``(N, T)`` int64: the position of each piece in ``vocabulary``, or its byte value.

    ``start`` and ``end`` are ids put around each text (-1: none), ``unknown`` the id of pieces that are not in the
    vocabulary. Shorter rows are filled with ``pad`` up to the longest of the batch, or up to ``length`` where it is not
    0; longer rows are cut to ``length``, the end token kept.
    """

    split: Literal["words", "characters", "bytes"]
    vocabulary: tuple[str, ...] = ()
    lower: bool = False
    unknown: int = 0
    start: int = -1
    end: int = -1
    pad: int = 0
    length: int = 0

    def __call__(self, batch: Array) -> Array:
        if batch.ndim != 1 or batch.dtype.kind not in "OUST":
            raise ValueError("tokenize wants one text per sample")
        known = {piece: index for index, piece in enumerate(self.vocabulary)}
        rows = [self._ids(str(text), known) for text in batch]
        longest = self.length or max((len(row) for row in rows), default=0)
        return np.array([row + [self.pad] * (longest - len(row)) for row in rows], np.int64).reshape(len(rows), longest)

    def _ids(self, text: str, known: Mapping[str, int]) -> list[int]:
        text = text.lower() if self.lower else text
        if self.split == "bytes":
            ids = list(text.encode())
        else:
            ids = [known.get(piece, self.unknown) for piece in (text.split() if self.split == "words" else text)]
        before, after = [self.start] * (self.start >= 0), [self.end] * (self.end >= 0)
        room = self.length - len(before) - len(after) if self.length else len(ids)
        return before + ids[: max(0, room)] + after


class Mask(_Step, frozen=True, tag="mask"):
    """1 where a token id is not ``pad``, 0 where it is: an attention mask, int64."""

    pad: int = 0

    def __call__(self, batch: Array) -> Array:
        return np.asarray(batch != self.pad, np.int64)


Step = (
    Resize | CenterCrop | Grayscale | Channels | Layout | Scale | Normalize | Clip | Cast | Reshape | Pad | Truncate
    | Tokenize | Mask
)  # fmt: skip


def _padded(batch: Array, axis: int, before: int, after: int, value: float) -> Array:
    if axis == 0:
        raise ValueError("axis 0 counts samples and is never padded")
    widths = [(0, 0)] * batch.ndim
    widths[axis] = (before, after)
    return np.pad(batch, widths, constant_values=value) if before or after else batch


def _like(values: Array, dtype: np.dtype[Any]) -> Array:
    """``values`` in ``dtype``, rounded and limited to its range when it holds integers."""
    if dtype.kind not in "iu":
        return values.astype(np.float32)
    limits = np.iinfo(dtype)
    return np.rint(values).clip(limits.min, limits.max).astype(dtype)


def _resampling(size: int, wanted: int, kind: str) -> Array:
    """The ``(wanted, size)`` float32 matrix that resamples one axis."""
    ratio = size / wanted
    centers = (np.arange(wanted) + 0.5) * ratio
    if kind == "nearest":
        return np.asarray(np.eye(size, dtype=np.float32)[np.minimum(centers.astype(int), size - 1)])
    stretch = max(ratio, 1.0)
    distance = np.abs((np.arange(size)[None, :] + 0.5 - centers[:, None]) / stretch)
    weights = _triangle(distance) if kind == "bilinear" else _cubic(distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _triangle(distance: Array) -> Array:
    return np.maximum(0.0, 1.0 - distance)


def _cubic(distance: Array, a: float = -0.5) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.asarray(np.where(distance < 1, near, np.where(distance < 2, far, 0.0)))
