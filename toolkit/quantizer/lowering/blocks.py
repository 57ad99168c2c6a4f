"""Tied tables beside ONNX Runtime's MatMulNBits: the Gather reads the bytes that the head reads.

MatMulNBits holds a weight turned, ``(columns, blocks, block) uint8``: row for row the table that the weight is tied to.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.graph.edit import Editor, remove, replace
from toolkit.graph.shapes import infer
from toolkit.quantizer.lowering.fitness import unfit
from toolkit.quantizer.lowering.tables import reads_table, tied_to
from toolkit.quantizer.plan import constant

_ZERO = 128
"""What MatMulNBits stores for 0 in 8 bits, where it has no zero points. Source: onnxruntime, ContribOperators.md."""


def tied_tables(model: ir.Model, block_size: int) -> dict[ir.Value, ir.Value]:
    """Tables that only Gathers read and whose transpose is the weight of a MatMul, with that weight."""
    shapes = infer(model)
    tables = [node.inputs[0] for node in model.graph if reads_table(node)]
    fit = {table: None for table in tables if table is not None and _shares(table, block_size)}
    for table in list(fit):
        indices = [use.node.inputs[1] for use in table.uses()]
        if any(value is None or value not in shapes or shapes[value].shape is None for value in indices):
            del fit[table]
    weights = (node.inputs[1] for node in model.graph if node.op_type == "MatMul" and not node.domain)
    found = ((tied_to(weight, fit), weight) for weight in weights if weight is not None)
    return {table: weight for table, weight in found if table is not None}


def _shares(table: ir.Value, block_size: int) -> bool:
    tensor = constant(table)
    if tensor is None or tensor.shape[1] % block_size or unfit(tensor) or table.is_graph_output():
        return False
    return all(reads_table(use.node) and use.idx == 0 for use in table.uses())


def share_blocks(model: ir.Model, tied: Mapping[str, str]) -> int:
    """Let the Gathers of each table read the blocks of the weight it is tied to; returns how many do.

    Args:
        model: as MatMulNBits was put into it.
        tied: name of a table to that of the weight.
    """
    edit, shapes = Editor(model), infer(model)
    products = [node for node in model.graph if node.op_type == "MatMulNBits"]
    packed = {value.name: value for node in products for value in node.inputs[1:3] if value is not None}
    count = 0
    for node in list(model.graph):
        weight = tied.get(node.inputs[0].name or "") if reads_table(node) and node.inputs[0] is not None else None
        blocks, steps = packed.get(f"{weight}_Q8"), packed.get(f"{weight}_scales")
        indices = node.inputs[1] if weight is not None else None
        shape = shapes[indices].shape if indices is not None and indices in shapes else None
        if blocks is None or steps is None or shape is None:
            continue
        _read_blocks(edit, node, blocks, steps, rank=len(shape))
        count += 1
    common.RemoveUnusedNodesPass()(model)
    return count


def _read_blocks(edit: Editor, node: ir.Node, blocks: ir.Value, steps: ir.Value, *, rank: int) -> None:
    tensor = constant(blocks)
    assert tensor is not None, "MatMulNBits has constant weights"
    rows, count, size = (int(dim) for dim in tensor.shape)
    old, indices = node.outputs[0], node.inputs[1]

    def fixed(values: list[int], name: str) -> ir.Value:
        return edit.constant(np.array(values, np.int64), f"{old.name}_{name}", node)

    one = edit.constant(np.array(1, np.float32), f"{old.name}_one", node)
    zero = edit.constant(np.array(_ZERO, np.uint8), f"{old.name}_zero_point", node)
    by_row = edit.before(node, "Reshape", [steps, fixed([rows, count, 1], "by_row")], name=f"{old.name}_row_scales")
    found = edit.before(node, "Gather", [blocks, indices], {"axis": 0}, name=f"{old.name}_blocks")
    floats = edit.before(node, "DequantizeLinear", [found, one, zero], name=f"{old.name}_dequantized")
    scales = edit.before(node, "Gather", [by_row, indices], {"axis": 0}, name=f"{old.name}_scale")
    scaled = edit.before(node, "Mul", [floats, scales], name=f"{old.name}_scaled")
    whole = fixed([*[0] * rank, count * size], "shape")
    result = edit.before(node, "Reshape", [scaled, whole], name=f"{old.name}_rows")
    result.type, result.shape = old.type, old.shape
    replace(old, result)
    remove(node)
