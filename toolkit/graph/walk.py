"""Ways through a model that include what is easily forgotten: subgraphs of If, Loop and Scan, and function bodies."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def every_graph(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, its subgraphs at every depth, then each function's body and its subgraphs."""
    yield from model.graphs()
    for function in model.functions.values():
        yield function.graph
        yield from function.subgraphs()


def every_node(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes in file order, those of subgraphs and functions included."""
    for graph in every_graph(model):
        yield from graph


def tensor_attributes(graph: ir.Graph) -> Iterator[tuple[ir.Node, str, list[ir.TensorProtocol]]]:
    """Node, attribute name and tensors of each attribute of ``graph``'s own nodes that holds tensors."""
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield node, name, [attribute.as_tensor()]
            elif attribute.type == ir.AttributeType.TENSORS:
                yield node, name, list(attribute.as_tensors())


def every_tensor(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """All weights: initializers and tensors in attributes."""
    for graph in every_graph(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for _, _, tensors in tensor_attributes(graph):
            yield from tensors


def clone_with_values(model: ir.Model) -> tuple[ir.Model, dict[ir.Value, ir.Value]]:
    """A copy of ``model``, and for each value of the original the one that stands for it in the copy."""
    copy = model.clone()
    pairs = zip(every_graph(model), every_graph(copy), strict=True)
    return copy, {old: new for graph, same in pairs for old, new in zip(values(graph), values(same), strict=True)}


def values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Everything ``graph`` itself defines: inputs, initializers that are no inputs, outputs of its nodes."""
    yield from graph.inputs
    yield from (value for value in graph.initializers.values() if not value.is_graph_input())
    for node in graph:
        yield from node.outputs
