"""Nodes that compute what another one computes already."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Hashable
from typing import Any, final

import onnx_ir as ir

from toolkit.graph.edit import can_replace, remove, replace, subgraphs
from toolkit.graph.precision import is_quantizing
from toolkit.graph.randomness import is_random
from toolkit.optimizer.base import Changes, Pass

# Tensors in attributes up to this size are compared by their bytes, larger ones by identity.
_COMPARED_BYTES = 4096


@final
class EliminateCommonSubexpressions(Pass):
    """Merge nodes of the standard domain with the same operator, inputs, attributes and subgraphs.

    A node in a branch may reuse what the graph around it computed before. Nodes that draw random numbers are never
    merged, nor are quantize and dequantize nodes: engines fuse each with its own neighbour.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        _merge(model.graph, ChainMap(), changes)
        for function in model.functions.values():
            _merge(function.graph, ChainMap(), changes)
        return model


def _merge(graph: ir.Graph, seen: ChainMap[Hashable, ir.Node], changes: Changes) -> None:
    for node in list(graph):
        for inner in subgraphs(node):
            _merge(inner, seen.new_child(), changes)
        if is_quantizing(node) or node.op_type == "Constant":
            continue
        if (reason := _untouchable(node)) is not None:
            changes.skip(reason)
            continue
        first = seen.setdefault(_key(node, {}), node)
        if first is not node:
            _replace_node(node, first, changes)


def _untouchable(node: ir.Node) -> str | None:
    """Why ``node`` must not be merged, or None."""
    if node.domain:
        return "not a standard operator"
    return "it draws random numbers" if is_random(node) else None


def _key(node: ir.Node, local: dict[ir.Value, int]) -> Hashable:
    """Equal for nodes that compute the same. ``local`` numbers a subgraph's own values: they are new in each."""
    inputs = tuple(None if value is None else local.get(value, value) for value in node.inputs)
    attributes = tuple(sorted((name, _attribute_key(item, local)) for name, item in node.attributes.items()))
    named = tuple(bool(output.name) for output in node.outputs)
    return node.op_type, node.overload, inputs, attributes, named


def _attribute_key(attribute: ir.Attr, local: dict[ir.Value, int]) -> Any:
    """Something hashable; sorting by attribute name never gets to compare two of these."""
    if attribute.is_ref():
        return ("ref", attribute.ref_attr_name)
    kind, value = attribute.type, attribute.value
    if kind == ir.AttributeType.GRAPH:
        return ("graph", _graph_key(value, local))
    if kind == ir.AttributeType.GRAPHS:
        return ("graphs", tuple(_graph_key(graph, local) for graph in value))
    if kind == ir.AttributeType.TENSOR:
        return ("tensor", _tensor_key(value))
    return (kind.name, repr(value))


def _tensor_key(tensor: ir.TensorProtocol) -> Hashable:
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes > _COMPARED_BYTES:
        return id(tensor)
    return tensor.dtype, tuple(tensor.shape), tensor.tobytes()


def _graph_key(graph: ir.Graph, outer: dict[ir.Value, int]) -> Hashable:
    local = dict(outer)
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        local[value] = len(local)
    weights = tuple(
        (None if value.const_value is None else _tensor_key(value.const_value)) for value in graph.initializers.values()
    )
    for value in graph.initializers.values():
        local.setdefault(value, len(local))
    nodes = tuple(_key(node, local) for node in graph)
    return len(graph.inputs), weights, nodes, tuple(local.get(value, value) for value in graph.outputs)


def _replace_node(node: ir.Node, first: ir.Node, changes: Changes) -> None:
    pairs = list(zip(node.outputs, first.outputs, strict=True))
    if not all(can_replace(old, new) for old, new in pairs):
        changes.skip("both results are outputs")
        return
    detail = f"{node.op_type} {node.outputs[0].name} is {first.outputs[0].name}"
    for old, new in pairs:
        replace(old, new)
    remove(node)
    changes.made(detail)
