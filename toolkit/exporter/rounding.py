"""How far rounding alone may move a module's answers: runs whose reductions and functions are jittered.

torch's own error is one sample of what float arithmetic does to a module. An engine that adds up a mean one by one,
or has another polynomial for tanh, is as right and lands elsewhere. Where a graph seems to differ by more than a
multiple of torch's error, the module is run some more times with the result of every reduction over n elements moved
by up to sqrt(n) units of roundoff, and of every function by a few; the farthest of these runs is what rounding can
do.

Source: Monte Carlo arithmetic, D. S. Parker, "Monte Carlo Arithmetic" (1997); sqrt(n) growth of rounding errors, N. J.
Higham and T. Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Terms = Callable[[Any, Any], float]


def _columns(args: Any, result: Any) -> float:
    """Terms of each element of a matrix product: the columns of its last matrix but one."""
    matrices = [item for item in args if isinstance(item, Tensor) and item.dim() >= 2]
    return float(matrices[-1].shape[-2]) if len(matrices) > 1 else 1.0


def _kernel(args: Any, result: Any) -> float:
    """Terms of a convolution: the weights of one output channel."""
    weight = args[1]
    return float(weight.numel() / max(1, weight.shape[0]))


def _reduced(args: Any, result: Any) -> float:
    """Terms of a sum: elements that came in per element that went out."""
    return float(args[0].numel() / max(1, result.numel()))


def _row(args: Any, result: Any) -> float:
    """Terms of a normalisation: at most one whole row of the last axis, or a channel's plane."""
    return float(max(args[0].shape[-1:] or (1,))) if isinstance(args[0], Tensor) else 1.0


def _few(args: Any, result: Any) -> float:
    """A function whose value an engine may round in another place or approximate to a few units."""
    return 4.0


# Operators that round, and over how many terms; data movement, comparisons and single additions are left out, so that
# indices and masks that are held in floats stay what they are.
_TERMS: dict[str, Terms] = {
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "mv", "dot"), _columns),
    **dict.fromkeys(("convolution", "_convolution", "mkldnn_convolution", "linear", "conv2d"), _kernel),
    **dict.fromkeys(("sum", "mean", "var", "std", "norm", "linalg_vector_norm"), _reduced),
    **dict.fromkeys(("avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d"), _reduced),
    **dict.fromkeys(("native_layer_norm", "native_group_norm"), _row),
    **dict.fromkeys(("_softmax", "_log_softmax", "cumsum", "logsumexp"), _row),
    **dict.fromkeys(
        (
            "exp", "log", "tanh", "sigmoid", "gelu", "silu", "erf", "rsqrt", "pow", "sin", "cos", "softplus", "mish",
            "elu", "hardswish", "native_batch_norm", "_native_batch_norm_legit_no_training", "upsample_bilinear2d",
            "upsample_bicubic2d", "_scaled_dot_product_flash_attention_for_cpu", "mkldnn_rnn_layer",
        ),
        _few,
    ),
}  # fmt: skip


# Functions that engines compute to within one unit of 1, whatever the value: ONNX Runtime's logistic stops at 1.5e-8
# instead of going on towards 0 (onnxruntime/core/mlas/lib/logistic.cpp clamps its argument to ±18).
_TO_ONE_UNIT = ("sigmoid",)


@final
class Jitter(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped to the checker
    """Moves the results of operators that round, by a random part of what rounding can do."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        terms = _TERMS.get(name)
        if terms is None or func._schema.is_mutable:
            return result
        first = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
        if first is None:
            return result
        size = math.sqrt(max(1.0, terms(args, first)))
        floor = 1.0 if name in _TO_ONE_UNIT else 0.0
        return tree_map(lambda leaf: self._moved(leaf, size, floor), result)

    def _moved(self, leaf: Any, size: float, floor: float) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.dtype.is_floating_point:
            return leaf
        unit = torch.finfo(leaf.dtype).eps / 2
        noise = torch.rand(leaf.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
        exact = leaf.double()
        moved = exact + noise * unit * torch.clamp(exact.abs() * size, min=floor)
        return torch.where(moved.sign() == exact.sign(), moved, exact).to(leaf.dtype)
