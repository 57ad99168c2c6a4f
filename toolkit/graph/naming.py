"""Names by which every node of a model can be told from all others."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from toolkit.graph.edit import Editor
from toolkit.graph.walk import every_graph, every_node, values


def with_distinct_names(model: ir.Model) -> tuple[ir.Model, bool]:
    """``model``, and False, where all its nodes have names of their own; else a copy in which they have, and True.

    Functions are put in the place of their calls, as engines do. Values that branches name alike get different names
    too. What the model computes stays.
    """
    if not model.functions and _distinct(model):
        return model, False
    copy = model.clone()
    if copy.functions:
        copy = InlinePass()(copy).model
    name_nodes(copy)
    _name_values(copy)
    return copy, True


def _distinct(model: ir.Model) -> bool:
    nodes = Counter(node.name for node in every_node(model))
    named = Counter(value.name for graph in every_graph(model) for value in values(graph) if value.name)
    return not any(nodes[empty] for empty in (None, "")) and all(
        count == 1 for counts in (nodes, named) for count in counts.values()
    )


def name_nodes(model: ir.Model) -> int:
    """Give nodes without a name, or with one that is taken, a name of their own: reports and choices refer to them.

    One without a name is called after its operator and its place in its graph, as in ``Conv_3``.

    Returns:
        How many had a name that was taken; ONNX Runtime does not open such a file.
    """
    repeated = 0
    taken: set[str] = set()
    for graph in every_graph(model):
        for index, node in enumerate(graph):
            wanted = node.name or f"{node.op_type}_{index}"
            name, number = wanted, 0
            while name in taken:
                number += 1
                name = f"{wanted}_{number}"
            repeated += bool(node.name) and name != node.name
            node.name = name
            taken.add(name)
    return repeated


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
