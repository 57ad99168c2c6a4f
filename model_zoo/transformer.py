"""Transformer encoders over image patches and over text, and the causal language model made of the same blocks.

Attention is written out (scores, softmax, sum) instead of calling ``scaled_dot_product_attention``: torch 2.13 exports
the latter with an IsNaN/Where guard behind each Softmax, which keeps engines from fusing attention.
"""

# mypy: disallow-subclassing-any=False
# (the checker sees torch and transformers as untyped)
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Added to the scores of positions that may not be attended to. Finite, so that a row with nothing to attend to gives an
# average instead of NaN; small enough for float16.
MASKED = -1e4


class Attention(nn.Module):
    """Self-attention over ``(N, T, width)`` with an optional additive ``mask`` broadcast to ``(N, heads, T, T)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (self._split(layer(hidden)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) * self.head_width**-0.5
        scores = scores if mask is None else scores + mask
        mixed = functional.softmax(scores, dim=-1) @ value
        merged: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return merged

    def _split(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), mask))
        result: Tensor = hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))
        return result


class PatchClassifier(nn.Module):
    """``pixel_values (N, 1, side, side) float32`` cut into patches, encoded and averaged: ``logits (N, classes)``."""

    def __init__(self, side: int, patch: int, width: int, depth: int, heads: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(1, (side // patch) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        hidden = self.patches(pixel_values).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            hidden = block(hidden)
        return {"logits": self.classifier(self.norm(hidden).mean(1))}


class TextClassifier(nn.Module):
    """``input_ids`` and ``attention_mask (N, T) int64``, averaged over tokens that count: ``logits (N, classes)``."""

    def __init__(
        self, vocabulary: int, longest: int, width: int, depth: int, heads: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        counted = attention_mask.to(self.positions.weight.dtype)
        mask = (1.0 - counted)[:, None, None, :] * MASKED
        hidden = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in self.blocks:
            hidden = block(hidden, mask)
        total = (self.norm(hidden) * counted[:, :, None]).sum(1)
        return {"logits": self.classifier(total / counted.sum(1, keepdim=True).clamp(min=1.0))}


class CausalLanguageModel(nn.Module):
    """``input_ids (N, T) int64`` to ``logits (N, T, vocabulary)``: at each position, what comes next."""

    def __init__(self, vocabulary: int, longest: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = (steps[None, :] > steps[:, None]).to(self.positions.weight.dtype) * MASKED
        hidden = self.tokens(input_ids) + self.positions(steps)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return {"logits": self.head(self.norm(hidden))}


def patch_classifier(
    side: int, patch: int, width: int, depth: int, heads: int, classes: int, dropout: float = 0.1
) -> nn.Module:
    return PatchClassifier(side, patch, width, depth, heads, classes, dropout)


def text_classifier(
    vocabulary: int, longest: int, width: int, depth: int, heads: int, classes: int, dropout: float = 0.1
) -> nn.Module:
    return TextClassifier(vocabulary, longest, width, depth, heads, classes, dropout)


def causal_language_model(
    vocabulary: int, longest: int, width: int, depth: int, heads: int, dropout: float = 0.1
) -> nn.Module:
    return CausalLanguageModel(vocabulary, longest, width, depth, heads, dropout)
