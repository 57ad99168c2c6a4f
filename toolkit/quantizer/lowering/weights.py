"""Weight-only int8 and int4 in standard operators: a DequantizeLinear in front of each MatMul.

int8 has one step per column, which engines fold into the product; int4 has one per block of rows, since 15 levels for a
whole column lose too much.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.graph.edit import Editor
from toolkit.providers.placement import WeightOnly
from toolkit.quantizer.lowering.gemm import split_gemms
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.plan import LeftInFloat, constant
from toolkit.tensors import Array

OPSETS = {8: 13, 4: 21}
"""DequantizeLinear takes channels from 13 on, blocks and 4-bit integers from 21 on."""
_LARGEST = {8: 127, 4: 7}


def lower_weights(model: ir.Model, rules: WeightOnly, bits: int) -> Lowered:
    """A copy of ``model`` (of at least ``OPSETS[bits]``) whose MatMuls read narrow weights and compute in float."""
    copy = model.clone()
    split_gemms(copy)
    edit, stored, left = Editor(copy), dict[ir.Value, ir.Value](), list[LeftInFloat]()
    count = 0
    for node in [node for node in copy.graph if node.op_type == "MatMul" and not node.domain]:
        weight = node.inputs[1]
        reason = _refusal(weight)
        if weight is None or reason:
            left.append(LeftInFloat(node.name or "", "MatMul", reason or "an operand is missing"))
            continue
        if weight not in stored:
            stored[weight] = _stored(edit, weight, copy.graph[0], rules.block_size, bits)
        node.replace_input_with(1, stored[weight])
        count += 1
    common.RemoveUnusedNodesPass()(copy)
    return Lowered(copy, f"weight-only int{bits}", f"int{bits}", {"MatMul": count} if count else {}, tuple(left))


def _refusal(weight: ir.Value | None) -> str | None:
    tensor = constant(weight)
    if tensor is None:
        return "its weight is not a constant"
    if tensor.dtype is not ir.DataType.FLOAT or len(tensor.shape) != 2:
        return f"its weight is {str(tensor.dtype).lower()}{list(tensor.shape)}, not a float32 matrix"
    return None if np.isfinite(tensor.numpy()).all() else "its weight has a NaN or an infinity"


def _stored(edit: Editor, weight: ir.Value, anchor: ir.Node, block_size: int, bits: int) -> ir.Value:
    """The weight, ``(rows, columns)``, behind a DQ."""
    tensor = constant(weight)
    assert tensor is not None, "checked by _refusal"
    array = tensor.numpy()
    blockwise = bits == 4 and array.shape[0] % block_size == 0
    narrow, steps = in_blocks(array, block_size if blockwise else array.shape[0], bits)
    operands = [
        edit.constant(narrow, f"{weight.name}_int{bits}", anchor),
        edit.constant(steps if blockwise else steps[0], f"{weight.name}_scale", anchor),
    ]
    attributes = {"axis": 0, "block_size": block_size} if blockwise else {"axis": 1}
    return edit.before(anchor, "DequantizeLinear", operands, attributes, name=f"{weight.name}_dequantized")


def in_blocks(weight: Array, block_size: int, bits: int) -> tuple[Array, Array]:
    """Symmetric integers and their steps, ``(rows, columns)`` and ``(rows / block_size, columns) float32``."""
    blocks = weight.reshape(-1, block_size, weight.shape[1])
    steps = np.abs(blocks).max(axis=1) / np.float32(_LARGEST[bits])
    steps = np.where(steps > np.finfo(np.float32).tiny, steps, np.float32(1)).astype(np.float32)
    stored = np.clip(np.round(blocks / steps[:, None]), -_LARGEST[bits], _LARGEST[bits]).reshape(weight.shape)
    return stored.astype(np.int8 if bits == 8 else ml_dtypes.int4), steps
