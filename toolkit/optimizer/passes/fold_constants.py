"""Nodes whose result is known before the model runs, as a pass."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.folding import DEFAULT_GROWTH_BYTES, fold_constants
from toolkit.optimizer.base import Changes, Pass


@final
class FoldConstants(Pass):
    """Compute what depends on constants alone (:func:`toolkit.graph.folding.fold_constants`)."""

    def __init__(self, growth_bytes: int = DEFAULT_GROWTH_BYTES) -> None:
        self._growth_bytes = growth_bytes

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        found = fold_constants(model, self._growth_bytes)
        for label in found.folded:
            changes.made(label)
        for reason in found.skipped:
            changes.skip(reason)
        return model
