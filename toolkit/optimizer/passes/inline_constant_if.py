"""Branches whose condition is known before the model runs, as a pass."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.branches import inline_constant_ifs
from toolkit.optimizer.base import Changes, Pass


@final
class InlineConstantIf(Pass):
    """Put the branch that is taken in place of an If whose condition is constant."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for name in inline_constant_ifs(model):
            changes.made(f"If {name}")
        return model
