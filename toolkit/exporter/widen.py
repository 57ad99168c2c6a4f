"""Run a module in float64 without making a copy of it: weights are exchanged for the time of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from toolkit.exporter import state

_COMPLEX = {torch.complex64: torch.complex128, torch.complex32: torch.complex128}


@contextmanager
def widened(module: nn.Module) -> Iterator[None]:
    """Inside the block every float tensor of ``module`` holds float64, and code that names float32 gets float64.

    Casts to half precision that the module's code does itself stay: they are part of what it computes.
    """
    kept = [(tensor, tensor.data) for tensor in state.tensors(module).values() if _wider(tensor) is not None]
    default = torch.get_default_dtype()
    try:
        for tensor, data in kept:
            tensor.data = data.to(_wider(tensor))
        torch.set_default_dtype(torch.float64)
        with _NamesFloat64():
            yield
    finally:
        torch.set_default_dtype(default)
        for tensor, data in kept:
            tensor.data = data


def widened_bytes(module: nn.Module) -> int:
    """Memory that :func:`widened` takes on top of the module."""
    return sum(tensor.numel() * 8 for tensor in state.tensors(module).values() if _wider(tensor) is not None)


def _wider(tensor: Tensor) -> torch.dtype | None:
    if tensor.dtype.is_floating_point and tensor.dtype != torch.float64:
        return torch.float64
    return _COMPLEX.get(tensor.dtype)


@final
class _NamesFloat64(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped to the checker
    """Reads ``torch.float32``, and ``.float()``, as float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        args, kwargs = tree_map(_renamed, (args, kwargs or {}))
        return func(*args, **kwargs)


def _renamed(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value == torch.float32 else value
