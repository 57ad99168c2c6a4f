"""Branches whose condition is known before the model runs."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from toolkit.graph.constants import constant_array
from toolkit.graph.edit import Editor, can_replace, graph_of, remove, replace
from toolkit.graph.walk import every_graph, values


def inline_constant_ifs(model: ir.Model) -> list[str]:
    """Put, in place, the branch that is taken in the place of every If whose condition is constant.

    Returns:
        Names of the first outputs of those that were replaced.
    """
    inlined: list[str] = []
    while (node := _next(model)) is not None:
        inlined.append(str(node.outputs[0].name))
        _inline(node, Editor(model))
    return inlined


def _next(model: ir.Model) -> ir.Node | None:
    """The first such If, outermost first: what is inside the branch not taken needs no work."""
    for graph in model.graphs():
        for node in graph:
            if node.op_type == "If" and not node.domain and constant_array(node.inputs[0]) is not None:
                return node
    return None


def _inline(node: ir.Node, edit: Editor) -> None:
    condition = constant_array(node.inputs[0])
    taken = bool(condition is not None and condition.all())
    branch, parent = node.attributes["then_branch" if taken else "else_branch"].as_graph(), graph_of(node)
    _rename(branch, edit)
    results = list(branch.outputs)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        branch.initializers.pop(name)
        parent.register_initializer(value)
    for inner in list(branch):
        branch.remove(inner)
        parent.insert_before(node, inner)
    for output, result in zip(node.outputs, results, strict=True):
        if not can_replace(output, result):
            result = edit.before(node, "Identity", [result], name=f"{output.name}_inlined")
        replace(output, result)
    remove(node)


def _rename(branch: ir.Graph, edit: Editor) -> None:
    """Give what ``branch`` defines names of its own: the two branches of an If may use the same ones."""
    counts = Counter(value.name for graph in every_graph(edit.model) for value in values(graph))
    for value in values(branch):
        if counts[value.name] > 1:
            value.name = edit.fresh(str(value.name))
