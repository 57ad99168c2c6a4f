"""Weight-only int8 and int4 in standard operators: a DequantizeLinear in front of each MatMul, and tables in int8.

int8 has one step per column, which engines fold into the product; int4 has one per block of rows, since 15 levels for a
whole column lose too much. A head that is tied to a table reads the table's own integers, since a column of the one is
a row of the other.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.graph.edit import Editor
from toolkit.providers.placement import WeightOnly
from toolkit.quantizer.lowering.fitness import unfit
from toolkit.quantizer.lowering.gemm import split_gemms
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.lowering.tables import Table, narrow_tables, tied_to
from toolkit.quantizer.plan import LeftInFloat, constant
from toolkit.tensors import Array

OPSETS = {8: 13, 4: 21}
"""DequantizeLinear takes channels from 13 on, blocks and 4-bit integers from 21 on."""
_LARGEST = {8: 127, 4: 7}


def lower_weights(model: ir.Model, rules: WeightOnly, bits: int) -> Lowered:
    """A copy of ``model`` (of at least ``OPSETS[bits]``) whose MatMuls read narrow weights and compute in float.

    Tables that Gathers read become int8 for either number of bits: Gather takes no narrower ones.
    """
    copy = model.clone()
    split_gemms(copy)
    edit, stored = Editor(copy), dict[ir.Value, ir.Value]()
    narrowed = narrow_tables(edit)
    left, count = list(narrowed.left), 0
    for node in [node for node in copy.graph if node.op_type == "MatMul" and not node.domain]:
        weight = node.inputs[1]
        reason = _refusal(weight)
        if weight is None or reason:
            left.append(LeftInFloat(node.name or "", "MatMul", reason or "an operand is missing"))
            continue
        if weight not in stored:
            table = tied_to(weight, narrowed.tables) if bits == 8 else None
            stored[weight] = (
                _stored(edit, weight, copy.graph[0], rules.block_size, bits)
                if table is None
                else _turned(edit, weight, narrowed.tables[table], copy.graph[0])
            )
        node.replace_input_with(1, stored[weight])
        count += 1
    common.RemoveUnusedNodesPass()(copy)
    quantized = {name: number for name, number in (("MatMul", count), ("Gather", narrowed.readers)) if number}
    return Lowered(copy, f"weight-only int{bits}", f"int{bits}", quantized, tuple(left))


def _refusal(weight: ir.Value | None) -> str | None:
    tensor = constant(weight)
    if tensor is None:
        return "its weight is not a constant"
    if tensor.dtype is not ir.DataType.FLOAT or len(tensor.shape) != 2:
        return f"its weight is {str(tensor.dtype).lower()}{list(tensor.shape)}, not a float32 matrix"
    return unfit(tensor)


def _turned(edit: Editor, weight: ir.Value, table: Table, anchor: ir.Node) -> ir.Value:
    """The transposed table, ``(columns, rows)``, from the integers that the table's readers read."""
    tensor = constant(table.steps)
    assert tensor is not None, "made by narrow_tables"
    steps = edit.constant(np.ascontiguousarray(tensor.numpy()[:, 0]), f"{weight.name}_scale", anchor)
    floats = edit.before(
        anchor, "DequantizeLinear", [table.rows, steps], {"axis": 0}, name=f"{weight.name}_dequantized"
    )
    return edit.before(anchor, "Transpose", [floats], {"perm": [1, 0]}, name=f"{weight.name}_turned")


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
