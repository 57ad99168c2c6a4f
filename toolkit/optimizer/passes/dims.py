"""Giving named dims a size, or another name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import onnx_ir as ir

from toolkit.graph.shapes import fix_dims, infer, rename_dims
from toolkit.optimizer.base import Changes, Pass


@final
class FixDims(Pass):
    """Write sizes in place of named dims, and into outputs whose shape then follows."""

    def __init__(self, dims: Mapping[str, int]) -> None:
        self._dims = dict(dims)

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        fixed = fix_dims(model, self._dims)
        shapes = infer(fixed)
        for output in fixed.graph.outputs:
            found = shapes.get(output)
            if found is not None and found.sizes is not None:
                output.shape = ir.Shape(found.sizes)
        for name, size in self._dims.items():
            changes.made(f"{name} is {size}")
        return fixed


@final
class RenameDims(Pass):
    """Give named dims other names."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        renamed = rename_dims(model, self._names)
        for old, new in self._names.items():
            changes.made(f"{old} is {new}")
        return renamed
