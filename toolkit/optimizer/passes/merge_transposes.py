"""Two transposes in a row."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass


@final
class MergeTransposes(Pass):
    """Transpose(Transpose(x)) becomes one Transpose of x; unread, the first goes with the dead code."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for graph in every_graph(model):
            for node in graph:
                while (first := _transpose_before(node)) is not None:
                    self._merge(first, node, changes)
        return model

    @staticmethod
    def _merge(first: ir.Node, second: ir.Node, changes: Changes) -> None:
        inner, outer = first.attributes.get_ints("perm"), second.attributes.get_ints("perm")
        assert inner is not None and outer is not None
        second.replace_input_with(0, first.inputs[0])
        second.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
        changes.made(f"{first.outputs[0].name} into {second.outputs[0].name}")


def _transpose_before(node: ir.Node) -> ir.Node | None:
    """The Transpose whose result the Transpose ``node`` reads, where both say how."""
    if not _says_how(node) or node.inputs[0] is None:
        return None
    first = node.inputs[0].producer()
    # One from outside a branch stays: it runs once, and the branch may run often.
    return first if first is not None and first.graph is node.graph and _says_how(first) else None


def _says_how(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and not node.domain and node.attributes.get_ints("perm") is not None
