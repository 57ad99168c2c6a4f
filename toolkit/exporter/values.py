"""Values that inputs take in the cases: usual ones, and those that lead into rare corners of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from toolkit.tensors import FLOATS, Array, TensorSpec, example_inputs

# What random floats are multiplied with. Large enough to leave the range that normalised data stay in, small enough
# that a deep network does not overflow.
_SCALES = (30.0, 1e-3)


def usual(specs: Sequence[TensorSpec], dims: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Random inputs at given sizes; masks start with ones, whose number differs from row to row."""
    feeds = example_inputs(specs, dims, seed=seed)
    return {spec.name: _masked(spec, feeds[spec.name]) for spec in specs}


def corners(specs: Sequence[TensorSpec], dims: Mapping[str, int], seed: int) -> Iterator[tuple[str, dict[str, Array]]]:
    """Variants of the usual inputs, with labels."""
    feeds = usual(specs, dims, seed)
    free = [spec.name for spec in specs if spec.dtype in FLOATS and spec.values is None]
    if free:
        for scale in _SCALES:
            yield f"×{scale:g}", {**feeds, **{name: _times(feeds[name], scale) for name in free}}
        yield "negative", {**feeds, **{name: np.asarray(-np.abs(feeds[name])) for name in free}}
        yield "zeros", {**feeds, **{name: np.zeros_like(feeds[name]) for name in free}}
        yield "ones", {**feeds, **{name: np.ones_like(feeds[name]) for name in free}}
    bounded = [spec for spec in specs if spec.values is not None or spec.dtype not in FLOATS]
    if any("mask" not in spec.name for spec in bounded):
        yield "lowest", {**feeds, **{spec.name: _bound(spec, feeds[spec.name], 0) for spec in bounded}}
        yield "highest", {**feeds, **{spec.name: _bound(spec, feeds[spec.name], 1) for spec in bounded}}
    if any("mask" in spec.name for spec in specs):
        yield "unmasked", {
            **feeds, **{spec.name: np.ones_like(feeds[spec.name]) for spec in specs if "mask" in spec.name}
        }  # fmt: skip


def _times(array: Array, scale: float) -> Array:
    return np.asarray((array * scale).astype(array.dtype))


def _bound(spec: TensorSpec, array: Array, which: int) -> Array:
    if "mask" in spec.name:
        return array
    low, high = spec.values or (0, 1)
    return np.full_like(array, (low, high)[which])


def _masked(spec: TensorSpec, array: Array) -> Array:
    """Ones first and zeros behind, as padding does; at least one, since a fully masked row has no defined answer."""
    if "mask" not in spec.name or array.ndim < 1:
        return array
    length = array.shape[-1]
    rows = int(np.prod(array.shape[:-1]))
    kept = 1 + (np.arange(rows) * 7 + length // 2) % length
    return np.asarray((np.arange(length)[None, :] < kept[:, None]).reshape(array.shape).astype(array.dtype))
