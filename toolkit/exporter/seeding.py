"""The process's random generators: left as they were, or set so that the same source draws the same weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SEED = 0


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the process's random generators as they were."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])


@contextmanager
def seeded() -> Iterator[None]:
    """Inside the block what is drawn without a seed of its own is the same every time."""
    with generators_kept():
        random.seed(_SEED)
        np.random.seed(_SEED)
        torch.random.default_generator.manual_seed(_SEED)
        yield
