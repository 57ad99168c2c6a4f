"""Sizes at which a model runs, for models that run at few: found by trying."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from toolkit.errors import ToolkitError
from toolkit.providers.session import Session
from toolkit.tensors import example_inputs

# Window lengths that audio and signal models ask for, and round numbers.
LENGTHS = (32, 64, 128, 256, 512, 576, 1024, 4096)
_MOST_TRIES = 120


def running_sizes(session: Session, dims: Mapping[str, int] | None = None) -> dict[str, int] | None:
    """Sizes for the session's named dims at which it runs on random inputs, or None where none was found.

    Each dim that ``dims`` leaves open is tried at 1 and at one common length, few long ones first.
    """
    given = dict(dims or {})
    free = [dim for dim in dict.fromkeys(d for spec in session.inputs for d in spec.dynamic_dims) if dim not in given]
    for sizes in itertools.islice(_candidates(free), _MOST_TRIES):
        try:
            session(example_inputs(session.inputs, {**given, **sizes}))
        except ToolkitError:
            continue
        return {**given, **sizes}
    return None


def _candidates(free: list[str]) -> Iterator[dict[str, int]]:
    ones = dict.fromkeys(free, 1)
    yield ones
    for length in LENGTHS:
        for count in range(1, len(free) + 1):
            for chosen in itertools.combinations(free, count):
                yield {**ones, **dict.fromkeys(chosen, length)}
