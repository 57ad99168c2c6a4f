"""A newer opset, as a pass."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.opset import upgrade
from toolkit.optimizer.base import Changes, Pass


@final
class UpgradeOpset(Pass):
    """Rewrite the model for a newer opset (:mod:`toolkit.graph.opset`)."""

    def __init__(self, opset: int) -> None:
        self._opset = opset

    def requires(self, model: ir.Model) -> str | None:
        return None if model.opset_imports.get("", 0) != self._opset else f"the model has opset {self._opset} already"

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        upgraded, notes = upgrade(model, self._opset)
        for note in notes:
            changes.made(note)
        return upgraded
