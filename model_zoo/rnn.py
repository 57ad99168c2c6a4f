"""Recurrent networks over sequences of any length."""

# mypy: disallow-subclassing-any=False
# (the checker sees torch and transformers as untyped)
from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Rnn(nn.Module):
    """LSTM or GRU layers, then a linear layer over the last step: ``features (N, T, width) float32`` to ``logits``."""

    def __init__(self, cell: str, width: int, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.recurrent = CELLS[cell](width, hidden, layers, batch_first=True)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        steps, _ = self.recurrent(features)
        return {"logits": self.classifier(steps[:, -1])}


def rnn(cell: Literal["lstm", "gru"], width: int, hidden: int, layers: int, classes: int) -> nn.Module:
    return Rnn(cell, width, hidden, layers, classes)
