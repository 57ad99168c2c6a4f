"""What a module takes: descriptions, ``--input`` texts or example tensors, all turned into TensorSpecs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from toolkit.errors import UsageError
from toolkit.providers.torch_ import dtype_name
from toolkit.tensors import Dim, TensorSpec, parse_spec

EXAMPLE = "--input 'pixel_values:float32[batch,3,224,224]' --input 'ids:int64[batch,seq]=0..511'"
BATCH = "batch"


def input_specs(inputs: Any, parameters: Iterable[str] = ()) -> tuple[TensorSpec, ...]:
    """TensorSpecs from whatever a caller or a source describes inputs with.

    Args:
        inputs: a TensorSpec, a text (``name:dtype[dims]``), an example tensor or array, or a sequence of these, or a
            mapping from names to shapes of example tensors. Of example tensors the first axis becomes the dynamic dim
            ``batch`` where all tensors have the same size there; all other sizes are fixed.
        parameters: names of the arguments of ``forward``, for examples that come without names.

    Raises:
        UsageError: something in ``inputs`` is none of these, or two inputs have one name.
    """
    if isinstance(inputs, TensorSpec | str | torch.Tensor | np.ndarray):
        inputs = (inputs,)
    items = list(inputs.items()) if isinstance(inputs, Mapping) else list(_named(list(inputs), list(parameters)))
    batched = _share_first_axis([item for _, item in items])
    specs = tuple(_spec(name, item, batched) for name, item in items)
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) != len(names):
        raise UsageError("inputs need names of their own", got=", ".join(names) or "no input", expected=EXAMPLE)
    return specs


def _named(items: list[Any], parameters: list[str]) -> Iterable[tuple[str, Any]]:
    for index, item in enumerate(items):
        yield (parameters[index] if index < len(parameters) else f"input_{index}"), item


def _share_first_axis(items: list[Any]) -> bool:
    """Whether every example tensor that has axes has as many entries in the first."""
    sizes = {item.shape[0] for item in items if isinstance(item, torch.Tensor | np.ndarray) and item.ndim}
    return len(sizes) == 1


def _spec(name: str, item: Any, batched: bool) -> TensorSpec:
    if isinstance(item, TensorSpec):
        return item
    if isinstance(item, str):
        return parse_spec(item)
    if isinstance(item, torch.Tensor | np.ndarray):
        dims: list[Dim] = list(item.shape)
        if dims and batched:
            dims[0] = BATCH
        return TensorSpec(name, _dtype(item), tuple(dims), _values(item))
    raise UsageError(
        "cannot read this input", where=name, got=type(item).__name__, expected=f"a tensor, a TensorSpec or {EXAMPLE}"
    )


def _dtype(item: Any) -> str:
    return dtype_name(item.dtype) if isinstance(item, torch.Tensor) else str(item.dtype.name)


def _values(item: Any) -> tuple[float, float] | None:
    """Range of an integer example: an index is only known to be valid where one was seen."""
    if _dtype(item) == "bool" or "int" not in _dtype(item) or not np.prod(item.shape):
        return None
    return float(item.min()), float(item.max())
