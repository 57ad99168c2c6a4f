"""Names by which every node of a model can be told from all others."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from toolkit.graph.edit import Editor
from toolkit.graph.walk import every_graph, every_node, values


def with_distinct_names(model: ir.Model) -> tuple[ir.Model, bool]:
    """``model``, and False, where all its nodes have names of their own; else a copy in which they have, and True.

    Functions are put in the place of their calls, as engines do. A node without a name is called after its operator and
    its first output. Values that branches name alike get different names too. What the model computes stays.
    """
    if not model.functions and _distinct(model):
        return model, False
    copy = model.clone()
    if copy.functions:
        copy = InlinePass()(copy).model
    _name_nodes(copy)
    _name_values(copy)
    return copy, True


def _distinct(model: ir.Model) -> bool:
    nodes = Counter(node.name for node in every_node(model))
    named = Counter(value.name for graph in every_graph(model) for value in values(graph) if value.name)
    return not any(nodes[empty] for empty in (None, "")) and all(
        count == 1 for counts in (nodes, named) for count in counts.values()
    )


def _name_nodes(model: ir.Model) -> None:
    counts = Counter(node.name for node in every_node(model))
    edit = Editor(model)
    for node in every_node(model):
        if not node.name:
            output = next((value.name for value in node.outputs if value.name), "")
            node.name = edit.node_name(f"{node.op_type}:{output}")
        elif counts[node.name] > 1:
            counts[node.name] -= 1
            node.name = edit.node_name(node.name)


def _name_values(model: ir.Model) -> None:
    """Rename what subgraphs define under a name that is used elsewhere; the main graph keeps its names."""
    edit = Editor(model)
    counts = Counter(value.name for graph in every_graph(model) for value in values(graph) if value.name)
    for graph in every_graph(model):
        if graph is model.graph:
            continue
        for value in list(values(graph)):
            if value.name and counts[value.name] > 1:
                counts[value.name] -= 1
                value.name = edit.fresh(value.name)
