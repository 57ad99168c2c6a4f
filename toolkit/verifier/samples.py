"""Inputs taken from data: what is fed, and the state that goes from one step to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.errors import InvalidData
from toolkit.preprocess import Preprocessing
from toolkit.tensors import Array, Feeds, TensorSpec, check_feeds, concrete_shape, numpy_dtype


class Samples:
    """Feeds in turn, from a path, a dataset or an iterable of feeds.

    A model with state gets one sample at a time. Its state inputs start as zeros, or as what the data hold, and then
    are what :meth:`answered` was told: both models get the reference's state, so that each step is compared on its own.
    """

    def __init__(
        self,
        data: Any,
        specs: Sequence[TensorSpec],
        *,
        preprocessing: Preprocessing | None = None,
        state: Mapping[str, str] | None = None,
        limit: int = 32,
    ) -> None:
        self._data, self._specs = data, tuple(specs)
        if isinstance(data, str | os.PathLike):
            from toolkit.data import open_data

            self._data = open_data(
                data, inputs=specs, preprocessing=preprocessing, limit=limit, state=dict(state or {})
            )
        self._pairs: Mapping[str, str] = getattr(self._data, "state", None) or {}
        self._state: dict[str, Array] = {}

    def __iter__(self) -> Iterator[Feeds]:
        current: object = None
        for item in self._data.batched(1) if self._pairs else self._data:
            feeds = getattr(item, "feeds", item)
            sequences = getattr(item, "sequences", None)
            sequence = None if sequences is None else sequences[0].item()
            if self._pairs and (not self._state or sequence != current):
                self._state, current = self._initial(feeds), sequence
            yield {**feeds, **self._state}

    def answered(self, outputs: Mapping[str, Array]) -> None:
        """Take over the state that the reference answered."""
        self._state = {name: outputs[output] for name, output in self._pairs.items() if output in outputs}

    def _initial(self, feeds: Feeds) -> dict[str, Array]:
        fed = [spec for spec in self._specs if spec.name in feeds]
        sizes = check_feeds(fed, {spec.name: feeds[spec.name] for spec in fed}, "data")
        return {spec.name: self._zeros(spec, feeds, sizes) for spec in self._specs if spec.name in self._pairs}

    def _zeros(self, spec: TensorSpec, feeds: Feeds, sizes: Mapping[str, int]) -> Array:
        if spec.name in feeds:
            return feeds[spec.name]
        unknown = [dim for dim in spec.dynamic_dims if dim not in sizes]
        if spec.shape is None or unknown:
            raise InvalidData(
                "the size of this state is not known", where=str(spec), next_step="put its first value into the data"
            )
        return np.zeros(concrete_shape(spec, sizes), numpy_dtype(spec.dtype))
