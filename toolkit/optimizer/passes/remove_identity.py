"""Nodes that hand on their first input unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import onnx_ir as ir

from toolkit.graph.constants import constant_array
from toolkit.graph.edit import remove, replace
from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass

_FIRST_TRAINING_INPUT = 12


def _dropout(node: ir.Node, opset: int) -> bool:
    """In inference Dropout does nothing; from opset 12 on an input can ask for training, before 7 an attribute did."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if opset < 7:
        return bool(node.attributes.get_int("is_test", 0))
    training = node.inputs[2] if opset >= _FIRST_TRAINING_INPUT and len(node.inputs) > 2 else None
    if training is None:
        return True
    asked = constant_array(training)
    return asked is not None and not asked.any()


def _transpose(node: ir.Node, opset: int) -> bool:
    perm = node.attributes.get_ints("perm")
    return perm is not None and list(perm) == list(range(len(perm)))


def _pad(node: ir.Node, opset: int) -> bool:
    if len(node.inputs) < 2:
        return False
    pads = constant_array(node.inputs[1])
    return pads is not None and not pads.any()


def _single(node: ir.Node, opset: int) -> bool:
    return len(node.inputs) == 1


# operator: when it does nothing.
_NOTHING: dict[str, Callable[[ir.Node, int], bool]] = {
    "Identity": lambda node, opset: True,
    "Dropout": _dropout,
    "Transpose": _transpose,
    "Pad": _pad,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
}


@final
class RemoveIdentity(Pass):
    """Remove Identity, inference-time Dropout, and transposes, pads and sums that do nothing.

    An Identity stays where it is what gives a graph's output its name: between an input and an output, and where a
    branch returns a value from outside.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for graph in every_graph(model):
            for node in list(graph):
                if (
                    not node.domain
                    and (test := _NOTHING.get(node.op_type))
                    and test(node, model.opset_imports.get("", 1))
                ):
                    self._remove(node, changes)
        return model

    @staticmethod
    def _remove(node: ir.Node, changes: Changes) -> None:
        source, output = node.inputs[0], node.outputs[0]
        if source is None:
            return
        label = f"{node.op_type} {output.name}"
        if not replace(output, source):
            changes.skip("it names an output that its input cannot stand for")
            return
        remove(node)
        changes.made(label)
