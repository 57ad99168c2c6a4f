"""What the zoo knows about a model before it is built; no torch is needed to read it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from toolkit.errors import MissingDependency
from toolkit.preprocess import Preprocessing
from toolkit.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an entry is trained: cross-entropy, mini-batches in an order fixed by ``seed``.

    The learning rate climbs to ``learning_rate`` and falls to zero. ``noise`` is the standard deviation of what is
    added to float inputs at each step, so that small data sets are not learnt by heart.
    """

    epochs: int
    batch_size: int = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    noise: float = 0.0
    seed: int = 0
    threads: int = 0
    """0: as many as torch uses anyway. 1 is fastest for tiny models, and the weights do not depend on the cores."""


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One model: how to build it, what it takes, what its data look like.

    ``module`` and ``factory`` name a function of this package that gives the module, called with ``arguments``.
    """

    name: str
    family: str
    description: str
    module: str
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...] = ("logits",)
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    task: str
    dataset: str
    licence: str = "Apache-2.0"
    parameters: int
    """Approximate number of weights."""
    recipe: Recipe | None = None
    """None for models that this toolkit does not train."""
    seed: int = 0

    def build(self) -> nn.Module:
        """The module in evaluation mode with random weights, the same at every call; torch's generator is left alone.

        Raises:
            MissingDependency: torch, or transformers for a real-size architecture, is not installed.
        """
        try:
            import torch

            factory = getattr(importlib.import_module(f".{self.module}", __package__), self.factory)
        except ModuleNotFoundError as exc:
            package = (exc.name or "torch").partition(".")[0]
            extra = "zoo" if package == "transformers" else "export"
            raise MissingDependency.of(package, extra, f"building zoo:{self.name}") from exc
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return cast("nn.Module", factory(**self.arguments).eval())
