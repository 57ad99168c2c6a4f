"""Weights that are listed as inputs, as files of IR version 3 have to."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.opset import oldest_ir
from toolkit.optimizer.base import Changes, Pass


@final
class DetachInitializers(Pass):
    """Take initializers off the list of inputs, so that engines may fold them; nobody can override them any more."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        listed = [value for value in model.graph.inputs if value.name in model.graph.initializers]
        if not listed:
            return model
        kept = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
        model.graph.inputs.clear()
        model.graph.inputs.extend(kept)
        model.ir_version = max(model.ir_version, oldest_ir(model.opset_imports.get("", 1)))
        changes.made(f"{len(listed)} weights are no inputs any more", len(listed))
        return model
