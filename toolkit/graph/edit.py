"""The few ways a graph is changed: new names, constants, nodes in front of another, one value in another's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import onnx_ir as ir

from toolkit.graph.walk import every_graph, values
from toolkit.tensors import Array


@final
class Editor:
    """Changes one model. Names are derived from those around them, so the same change gives the same model twice."""

    def __init__(self, model: ir.Model, shapes: Mapping[ir.Value, ir.Shape | None] | None = None) -> None:
        self.model = model
        self._shapes = dict(shapes or {})
        self._bodies = {id(function.graph) for function in model.functions.values()}
        self._values = {value.name for graph in every_graph(model) for value in values(graph)}
        self._nodes = {node.name for graph in every_graph(model) for node in graph}

    def fresh(self, wanted: str) -> str:
        """``wanted``, or with a number behind it when the model has that name somewhere."""
        return _fresh(wanted, self._values)

    def constant(self, array: Array | ir.TensorProtocol, name: str, before: ir.Node) -> ir.Value:
        """A constant that ``before`` may read: an initializer of its graph, a Constant node in a function's body."""
        name = self.fresh(name)
        tensor = ir.tensor(array, name=name) if isinstance(array, np.ndarray) else array
        graph = graph_of(before)
        if id(graph) in self._bodies:
            return self.before(before, "Constant", [], {"value": tensor}, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        graph.register_initializer(value)
        return value

    def before(
        self,
        anchor: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node with one output called ``name`` in front of ``anchor``; returns the output."""
        output = ir.Value(name=self.fresh(name))
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, outputs=[output], name=self.node_name(name))
        graph_of(anchor).insert_before(anchor, node)
        return output

    def shape(self, value: ir.Value | None) -> ir.Shape | None:
        """What is known of a value's shape."""
        if value is None:
            return None
        return self._shapes.get(value) or value.shape

    def learn(self, value: ir.Value, shape: ir.Shape | None) -> None:
        """Remember the shape of a value that inference knew nothing about."""
        if self.shape(value) is None:
            self._shapes[value] = shape

    def node_name(self, wanted: str) -> str:
        return _fresh(wanted, self._nodes)


def _fresh(wanted: str, taken: set[Any]) -> str:
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert graph is not None, "the node was removed already"
    return graph


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """Whether ``new`` can stand wherever ``old`` does.

    A graph output keeps its name, so what replaces it has to be computed in the same graph and be no output itself.
    """
    if not old.is_graph_output():
        return True
    producer = new.producer()
    return producer is not None and producer.graph is old.graph and not new.is_graph_output()


def replace(old: ir.Value, new: ir.Value) -> bool:
    """Make everything that reads ``old`` read ``new``; False, and nothing done, where :func:`can_replace` says no."""
    if not can_replace(old, new):
        return False
    if old.is_graph_output():
        name, old.name = old.name, f"{old.name}__replaced"
        new.name = name
        new.shape, new.type = old.shape or new.shape, old.type or new.type
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    return True


def remove(node: ir.Node) -> None:
    """Take ``node``, whose outputs nobody reads, out of its graph; what it and its subgraphs read is released too."""
    for graph in subgraphs(node):
        # Outputs first: a value may not leave a graph whose output it is.
        graph.outputs.clear()
        for inner in reversed(list(graph)):
            remove(inner)
    graph_of(node).remove(node, safe=True)


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The graphs in ``node``'s attributes: branches of an If, bodies of Loop and Scan."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found
