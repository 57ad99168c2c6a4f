"""Gemm as MatMul and Add: dynamic and weight-only quantization know MatMul alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.graph.edit import Editor, graph_of, remove, replace


def split_gemms(model: ir.Model) -> int:
    """Replace each Gemm with a constant weight and neither alpha, beta nor transA; returns how many."""
    edit = Editor(model)
    found = [node for node in model.graph if _splits(node)]
    for node in found:
        _split(node, edit)
    common.RemoveUnusedNodesPass()(model)
    return len(found)


def _splits(node: ir.Node) -> bool:
    if node.op_type != "Gemm" or node.domain or node.inputs[1] is None or node.inputs[1].const_value is None:
        return False
    plain = node.attributes.get_float("alpha", 1.0) == 1.0 and node.attributes.get_float("beta", 1.0) == 1.0
    return plain and not node.attributes.get_int("transA", 0)


def _split(node: ir.Node, edit: Editor) -> None:
    data, weight = node.inputs[0], node.inputs[1]
    assert weight is not None and weight.const_value is not None
    if node.attributes.get_int("transB", 0):
        turned = np.ascontiguousarray(weight.const_value.numpy().T)
        weight = edit.constant(turned, f"{weight.name}_transposed", node)
    old = node.outputs[0]
    result = edit.before(node, "MatMul", [data, weight], name=f"{old.name}_product")
    producer = result.producer()
    assert producer is not None
    producer.name = edit.node_name(f"{node.name}_matmul")
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = edit.before(node, "Add", [result, node.inputs[2]], name=f"{old.name}_sum")
    result.type, result.shape = old.type, old.shape
    replace(old, result)
    assert graph_of(node) is not None
    remove(node)
