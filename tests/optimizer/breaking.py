"""Passes that are wrong on purpose, each in its own way."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.edit import remove, replace
from toolkit.optimizer.base import Changes, Pass


@final
class DropRelus(Pass):
    """Valid ONNX, other numbers."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for node in [node for node in model.graph if node.op_type == "Relu"]:
            if replace(node.outputs[0], node.inputs[0]):
                remove(node)
                changes.made("a Relu")
        return model


@final
class MisspellOperators(Pass):
    """Not ONNX any more."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        node = next(iter(model.graph))
        node.op_type = "Ralu"
        changes.made("an operator")
        return model


@final
class RaiseKeyError(Pass):
    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        raise KeyError("of all\nthings")


@final
class FreezeBatch(Pass):
    """As a careless exporter does: right for the batch it saw, wrong for every other."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        if "frozen" not in model.graph.initializers:
            target = ir.Value(name="frozen", const_value=ir.tensor([2, 12], name="frozen"))
            model.graph.register_initializer(target)
            next(node for node in model.graph if node.op_type == "Reshape").replace_input_with(1, target)
            changes.made("a dynamic dim")
        return model


@final
class Toggle(Pass):
    """Never done."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        changes.made("nothing at all")
        return model
