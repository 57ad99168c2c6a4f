"""Real-size architectures from ``transformers``, with random weights.

Each is the library's own class, so published checkpoints fit. Text models get a ``forward`` of plain tensors that makes
the attention mask itself: the library's general mask code exports to a dozen index nodes that no engine optimizes.
``eager`` attention, for the reason in :mod:`transformer`.
"""

# mypy: disallow-subclassing-any=False
# (the checker sees torch and transformers as untyped)
from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

MASKED = -1e4


def _padding_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``(N, T)`` of ones and zeros to the additive ``(N, 1, 1, T)`` that eager attention adds to its scores."""
    return (1.0 - attention_mask.to(dtype))[:, None, None, :] * MASKED


def _causal_mask(steps: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive ``(1, 1, T, T)``: no position sees a later one."""
    return (steps[None, :] > steps[:, None]).to(dtype)[None, None] * MASKED


class Bert(transformers.BertForSequenceClassification):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = _padding_mask(attention_mask, self.dtype)
        result = super().forward(input_ids, attention_mask=mask, token_type_ids=torch.zeros_like(input_ids))
        return {"logits": result.logits}


class DistilBert(transformers.DistilBertForSequenceClassification):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(input_ids, attention_mask=_padding_mask(attention_mask, self.dtype)).logits}


class Gpt2(transformers.GPT2LMHeadModel):
    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = _causal_mask(steps, self.dtype)
        result = super().forward(input_ids, attention_mask=mask, position_ids=steps[None], use_cache=False)
        return {"logits": result.logits}


class Llama(transformers.LlamaForCausalLM):
    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = _causal_mask(steps, self.dtype)
        result = super().forward(input_ids, attention_mask=mask, position_ids=steps[None], use_cache=False)
        return {"logits": result.logits}


def resnet(**config: Any) -> nn.Module:
    return _built(transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000, **config)))


def mobilenet_v2(**config: Any) -> nn.Module:
    # 1001 classes: the published checkpoints count "background" as class 0.
    config = {"num_labels": 1001, **config}
    return _built(transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(**config)))


def convnext(**config: Any) -> nn.Module:
    return _built(transformers.ConvNextForImageClassification(transformers.ConvNextConfig(num_labels=1000, **config)))


def vit(**config: Any) -> nn.Module:
    settings = transformers.ViTConfig(num_labels=1000, attn_implementation="eager", **config)
    return _built(transformers.ViTForImageClassification(settings))


def bert(**config: Any) -> nn.Module:
    return _built(Bert(transformers.BertConfig(num_labels=2, attn_implementation="eager", **config)))


def distilbert(**config: Any) -> nn.Module:
    return _built(DistilBert(transformers.DistilBertConfig(num_labels=2, attn_implementation="eager", **config)))


def gpt2(**config: Any) -> nn.Module:
    return _built(Gpt2(transformers.GPT2Config(use_cache=False, attn_implementation="eager", **config)))


def llama(**config: Any) -> nn.Module:
    return _built(Llama(transformers.LlamaConfig(use_cache=False, attn_implementation="eager", **config)))


def _built(model: Any) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model
