"""Fully connected networks."""

# mypy: disallow-subclassing-any=False
# (the checker sees torch and transformers as untyped)
from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn


class Fcnn(nn.Module):
    """Linear layers with ReLU between them: ``pixel_values (N, widths[0]) float32`` to ``logits (N, widths[-1])``."""

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths[:-1]):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(pixel_values)}


def fcnn(widths: Sequence[int], dropout: float = 0.1) -> nn.Module:
    return Fcnn(widths, dropout)
