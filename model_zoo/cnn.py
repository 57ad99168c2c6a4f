"""Convolutional networks."""

# mypy: disallow-subclassing-any=False
# (the checker sees torch and transformers as untyped)
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Cnn(nn.Module):
    """Blocks of convolution, batch norm, ReLU and pooling, then a linear layer over the pooled planes.

    ``pixel_values (N, 1, H, W) float32`` to ``logits (N, classes)``.
    """

    def __init__(self, channels: Sequence[int], classes: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after in zip([1, *channels[:-1]], channels, strict=True):
            blocks += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            blocks += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels[-1], classes))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": self.classifier(self.features(pixel_values))}


def cnn(channels: Sequence[int], classes: int, dropout: float = 0.1) -> nn.Module:
    return Cnn(channels, classes, dropout)
