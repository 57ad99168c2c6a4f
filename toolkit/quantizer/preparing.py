"""Bringing a model into the form that lowering expects, without changing what it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.errors import UsageError
from toolkit.graph.edit import Editor, remove, replace
from toolkit.graph.facts import facts
from toolkit.graph.naming import name_nodes
from toolkit.graph.opset import upgrade
from toolkit.tensors import Array


class Prepared(NamedTuple):
    """The model, and what was done to it: ``opset_before`` and ``notes`` are for the report."""

    model: ir.Model
    opset_before: int
    opset: int
    notes: tuple[str, ...]


def prepare(model: ir.Model, *, opset: int, where: object) -> Prepared:
    """A copy of ``model`` of at least ``opset`` whose constants are initializers and whose nodes have names.

    Raises:
        UsageError: the model is quantized already.
        InvalidModel: it cannot be upgraded.
    """
    found = facts(model)
    if found.quantized:
        raise UsageError(
            "the model is quantized already", where=where, got=found.precision, next_step="quantize the float model"
        )
    notes: list[str] = []
    copy = model.clone()
    if found.opset and found.opset < opset:
        copy, upgraded = upgrade(copy, opset)
        copy = copy.clone() if copy is model else copy
        notes += upgraded
    if copy.functions:
        common.InlinePass()(copy)
        notes.append("functions were inlined")
    common.RemoveInitializersFromInputsPass()(copy)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    _fold_movers(copy)
    name_nodes(copy)
    if count := _foldable_norms(copy):
        notes.append(f"{count} BatchNormalization behind a Conv cost accuracy and speed: run toolkit optimize first")
    return Prepared(copy, found.opset, copy.opset_imports.get("", found.opset), tuple(notes))


def _foldable_norms(model: ir.Model) -> int:
    producers = (node.inputs[0] for node in model.graph if node.op_type == "BatchNormalization")
    return sum(1 for value in producers if value is not None and _produced_by(value, ("Conv", "ConvTranspose")))


def _produced_by(value: ir.Value, operators: tuple[str, ...]) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in operators


Mover = Callable[[ir.Node, list[Array]], Array]


def _transpose(node: ir.Node, operands: list[Array]) -> Array:
    order = node.attributes.get("perm")
    return np.transpose(operands[0], None if order is None else tuple(order.as_ints()))


def _reshape(node: ir.Node, operands: list[Array]) -> Array:
    data, wanted = operands
    keep_zeros = node.attributes.get_int("allowzero", 0)
    sizes = [data.shape[axis] if size == 0 and not keep_zeros else int(size) for axis, size in enumerate(wanted)]
    return data.reshape(sizes)


# Between a weight and its node stand, in old exports, nodes that only move elements. Computing with weights is
# constant folding, which is the optimizer's work.
_MOVERS: Mapping[str, Mover] = {
    "Identity": lambda node, operands: operands[0],
    "Transpose": _transpose,
    "Reshape": _reshape,
}


def _fold_movers(model: ir.Model) -> None:
    edit = Editor(model)
    for node in list(model.graph):
        mover = _MOVERS.get(node.op_type)
        if mover is None or node.domain or not node.inputs or any(_constant(value) is None for value in node.inputs):
            continue
        weight = node.outputs[0]
        operands = [tensor.numpy() for tensor in map(_constant, node.inputs) if tensor is not None]
        if weight.is_graph_output() or operands[0].dtype.name != "float32":
            continue
        moved = np.ascontiguousarray(mover(node, operands))
        replace(weight, edit.constant(moved, weight.name or node.op_type, node))
        remove(node)
    common.RemoveUnusedNodesPass()(model)


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    return None if value is None or value.is_graph_input() else value.const_value
