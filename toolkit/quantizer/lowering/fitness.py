"""Weights that no integer can stand for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_LEVELS = 127
_TINY = float(np.finfo(np.float32).tiny)


def unfit(tensor: ir.TensorProtocol | None) -> str | None:
    """Why a float32 weight cannot be narrowed; None when it can. All zeros can."""
    if tensor is None or tensor.dtype is not ir.DataType.FLOAT or not tensor.size:
        return None
    array = tensor.numpy()
    if not np.isfinite(array).all():
        return "its weight has a NaN or an infinity"
    largest = float(np.abs(array).max())
    return "the values of its weight are too small for a scale" if 0 < largest / _LEVELS < _TINY else None
