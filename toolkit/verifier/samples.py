"""Inputs taken from data: what is fed, and the state that goes from one step to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.preprocess import Preprocessing
from toolkit.providers.streaming import first_states
from toolkit.tensors import Array, Feeds, TensorSpec


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
                self._state = first_states(self._pairs, self._specs, feeds, "data")
                current = sequence
            yield {**feeds, **self._state}

    def answered(self, outputs: Mapping[str, Array]) -> None:
        """Take over the state that the reference answered."""
        self._state = {name: outputs[output] for name, output in self._pairs.items() if output in outputs}
