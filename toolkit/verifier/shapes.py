"""At which sizes two models are compared: the smallest, a usual one, and ones nobody traced, for every dynamic dim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from toolkit.errors import UsageError
from toolkit.tensors import FLOATS, Dim, TensorSpec, batch_dim, complete_dims

# The first of these that the reference takes is the smallest size. Images begin higher: engines disagree on what a
# strided network does with a single pixel, and nobody asks it.
SMALLEST = (1, 2, 4, 8, 16, 32, 64)
_SMALLEST_PIXELS = 32
# Unseen sizes: larger than the defaults of toolkit.tensors, and unlike each other, so that swapped dims show.
_LARGER_BATCH, _LARGER_LENGTH, _LARGER_PIXELS = 5, 37, 256
_USUAL_BATCH = 2


class ShapeCase(msgspec.Struct, frozen=True):
    """One set of sizes; ``alternatives`` are tried in turn where the reference does not run at ``dims``."""

    label: str
    dims: dict[str, int]
    alternatives: tuple[dict[str, int], ...] = ()


def merge_specs(reference: Sequence[TensorSpec], candidate: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The reference's inputs, with a dim fixed where the candidate fixes it, everywhere that dim's name occurs.

    Raises:
        UsageError: the inputs differ in name, rank or a fixed size, so there is nothing to feed both.
    """
    others = {spec.name: spec for spec in candidate}
    if set(others) != {spec.name for spec in reference}:
        raise UsageError(
            "the two models have different inputs",
            got=", ".join(map(str, candidate)),
            expected=", ".join(map(str, reference)),
        )
    fixed: dict[str, int] = {}
    for spec in reference:
        for dim, other in zip(spec.shape or (), others[spec.name].shape or (), strict=False):
            if isinstance(dim, str) and isinstance(other, int) and fixed.setdefault(dim, other) != other:
                raise UsageError("one dim is fixed to two sizes", where=dim, got=f"{fixed[dim]} and {other}")
    return tuple(_merged(spec, others[spec.name], fixed) for spec in reference)


def _merged(spec: TensorSpec, other: TensorSpec, fixed: Mapping[str, int]) -> TensorSpec:
    if spec.shape is None or other.shape is None:
        return spec if spec.shape is not None else other
    differs = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(spec.shape, other.shape))  # noqa: B905
    if len(spec.shape) != len(other.shape) or differs:
        raise UsageError("the two models' inputs have different shapes", got=other, expected=spec)
    shape: tuple[Dim, ...] = tuple(fixed.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.shape)
    return TensorSpec(spec.name, spec.dtype, shape, spec.values or other.values)


def shape_cases(specs: Sequence[TensorSpec], dims: Mapping[str, int] | None = None) -> Iterator[ShapeCase]:
    """Sizes to compare at; dims named in ``dims`` stay at the size given there.

    Yields:
        the usual sizes, the smallest, all dims larger, and, where there are several dims, each larger on its own.
    """
    given = dict(dims or {})
    complete_dims(specs, given)  # names that no input has are refused here
    larger = larger_sizes(specs)
    free = [name for name in larger if name not in given]
    usual = usual_sizes(specs, given)
    yield ShapeCase("usual" if free else "fixed", usual)
    if not free:
        return
    pixels = pixel_dims(specs)
    smallest, *alternatives = (
        {**usual, **{name: max(size, _SMALLEST_PIXELS) if name in pixels else size for name in free}}
        for size in SMALLEST
    )
    yield ShapeCase("smallest", smallest, tuple(alternatives))
    yield ShapeCase("larger", {**usual, **{name: larger[name] for name in free}})
    if len(free) > 1:
        for name in free:
            yield ShapeCase(f"larger {name}", {**usual, name: larger[name]})


def usual_sizes(specs: Sequence[TensorSpec], given: Mapping[str, int]) -> dict[str, int]:
    """The default sizes, but a batch of two: one hides broadcasting mistakes."""
    batch = batch_dim(specs)
    return {
        name: _USUAL_BATCH if name == batch and name not in given else size
        for name, size in complete_dims(specs, given).items()
    }


def pixel_dims(specs: Sequence[TensorSpec]) -> set[str]:
    """Names of dims that are heights and widths of images: the last two of rank four, but the batch."""
    batch = batch_dim(specs)
    images = [spec for spec in specs if spec.shape and len(spec.shape) == 4 and spec.dtype in (*FLOATS, "uint8")]
    return {dim for spec in images for dim in (spec.shape or ())[2:] if isinstance(dim, str) and dim != batch}


def larger_sizes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """An unseen size per dim, each different from the usual one."""
    batch, pixels = batch_dim(specs), pixel_dims(specs)
    sizes: dict[str, int] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape or ()):
            if not isinstance(dim, str) or dim in sizes:
                continue
            if dim == batch:
                sizes[dim] = _LARGER_BATCH
            elif dim in pixels:
                sizes[dim] = _LARGER_PIXELS + 32 * (axis - 2)
            else:
                sizes[dim] = _LARGER_LENGTH + 4 * len(sizes)
    return sizes
