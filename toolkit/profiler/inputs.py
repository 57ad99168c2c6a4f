"""What a case is fed: sizes for its dims, and several sets of arrays that rotate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from toolkit.errors import NotApplicable
from toolkit.tensors import Array, TensorSpec, batch_dim, complete_dims, example_inputs

SETS = 4
"""A power of two: samples are thinned by odd steps, which then meet every set alike."""


class Sizes(msgspec.Struct, frozen=True):
    """What the named dims of a model are set to: ``batch`` samples, ``dims`` all other named dims.

    ``guessed`` names those that nobody gave a size, the batch apart.
    """

    batch: int
    dims: dict[str, int]
    all: dict[str, int]
    guessed: tuple[str, ...] = ()


def sizes(specs: Sequence[TensorSpec], batch: int | None, wanted: Mapping[str, int]) -> Sizes:
    """Sizes for every named dim of ``specs``: those wanted, ``batch`` for the leading one, defaults for the rest.

    Raises:
        NotApplicable: the batch is fixed in the model, at another size.
    """
    name = batch_dim(specs)
    known = {dim for spec in specs for dim in spec.dynamic_dims}
    chosen = {dim: size for dim, size in wanted.items() if dim in known}
    if name is not None and batch is not None:
        chosen[name] = batch
    if name is None:
        fixed = fixed_batch(specs)
        if batch not in (None, fixed):
            raise NotApplicable(f"the batch is fixed at {fixed} in the model")
        full = complete_dims(specs, chosen)
        return Sizes(fixed, full, full, tuple(dim for dim in full if dim not in wanted))
    full = complete_dims(specs, chosen)
    others = {dim: size for dim, size in full.items() if dim != name}
    return Sizes(full[name], others, full, tuple(dim for dim in others if dim not in wanted))


def fixed_batch(specs: Sequence[TensorSpec]) -> int:
    """The leading size of the first input that has one, 1 where none has."""
    return next((spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)), 1)


def random_feeds(specs: Sequence[TensorSpec], dims: Mapping[str, int], seed: int) -> list[dict[str, Array]]:
    """:data:`SETS` sets of example inputs, different from each other and the same for every worker."""
    return [example_inputs(specs, dims, seed=seed * SETS + index) for index in range(SETS)]


def tiled(feeds: Sequence[Mapping[str, Array]], specs: Sequence[TensorSpec], batch: int) -> list[dict[str, Array]]:
    """Sets of ``batch`` samples made of ``feeds``, which hold fewer: each begins with another set and goes on in turn.

    Only inputs whose leading dim counts samples grow.
    """
    name = batch_dim(specs)
    grows = {spec.name for spec in specs if spec.shape and spec.shape[0] == name}
    return [
        {
            key: _rows([feeds[(first + step) % len(feeds)][key] for step in range(len(feeds))], batch)
            if key in grows
            else array
            for key, array in feed.items()
        }
        for first, feed in enumerate(feeds)
    ]


def _rows(parts: Sequence[Array], batch: int) -> Array:
    """The first ``batch`` rows of ``parts`` one after the other, again and again."""
    rows = np.concatenate(parts)
    return np.ascontiguousarray(rows[np.arange(batch) % len(rows)])


def write_feeds(path: Path, feeds: Iterable[Mapping[str, Array]]) -> None:
    """Write sets of arrays where :func:`read_feeds` finds them."""
    arrays = {f"{index}/{name}": array for index, feed in enumerate(feeds) for name, array in feed.items()}
    with path.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle


def read_feeds(path: str | Path) -> list[dict[str, Array]]:
    sets: dict[str, dict[str, Array]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            index, _, name = key.partition("/")
            sets.setdefault(index, {})[name] = archive[key]
    return list(sets.values())


def shapes(feeds: Mapping[str, Array]) -> list[list[int]]:
    """The shapes that are fed, in an order that does not depend on names: what makes two cases comparable."""
    return sorted(list(array.shape) for array in feeds.values())
