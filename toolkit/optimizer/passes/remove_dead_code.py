"""Everything that no output depends on."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.edit import remove, subgraphs
from toolkit.graph.walk import every_graph, every_node
from toolkit.optimizer.base import Changes, Pass


@final
class RemoveDeadCode(Pass):
    """Remove nodes, initializers, functions and operator sets that nothing uses, in subgraphs and functions too.

    Inputs stay, used or not: they are the model's signature.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            _drop_nodes(graph, changes)
        _drop_functions(model, changes)
        for graph in every_graph(model):
            _drop_initializers(graph, changes)
        _drop_imports(model, changes)
        return model


def _drop_nodes(graph: ir.Graph, changes: Changes) -> None:
    """Backwards, so that what only dead nodes read is dead by the time it is reached."""
    for node in reversed(list(graph)):
        if any(output.uses() or output.is_graph_output() for output in node.outputs):
            for inner in subgraphs(node):
                _drop_nodes(inner, changes)
        else:
            changes.made(f"{node.op_type} {node.outputs[0].name if node.outputs else node.name}")
            remove(node)


def _drop_initializers(graph: ir.Graph, changes: Changes) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            graph.initializers.pop(name)
            changes.made(f"initializer {name}")


def _drop_functions(model: ir.Model, changes: Changes) -> None:
    used: set[ir.OperatorIdentifier] = set()
    waiting = [node.op_identifier() for graph in model.graphs() for node in graph]
    while waiting:
        name = waiting.pop()
        if name in model.functions and name not in used:
            used.add(name)
            function = model.functions[name]
            bodies = (function.graph, *function.subgraphs())
            waiting += [node.op_identifier() for graph in bodies for node in graph]
    for name in [name for name in model.functions if name not in used]:
        del model.functions[name]
        changes.made(f"function {name[0]}.{name[1]}")


def _drop_imports(model: ir.Model, changes: Changes) -> None:
    used = {node.domain for node in every_node(model)} | {""}
    for domain in [domain for domain in model.graph.opset_imports if domain not in used]:
        del model.graph.opset_imports[domain]
        changes.made(f"operator set {domain}")
