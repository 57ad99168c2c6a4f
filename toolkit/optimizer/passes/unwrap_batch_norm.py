"""Batch norms of flat features that were given an extra axis first."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.constants import axes_of, only_consumer
from toolkit.graph.edit import can_replace, remove, replace
from toolkit.optimizer.base import Changes, Pass


@final
class UnwrapBatchNorm(Pass):
    """Unsqueeze, BatchNormalization, Squeeze becomes BatchNormalization: old exporters wrapped (N, C) as (N, C, 1).

    A batch norm works along axis 1 whatever comes behind, so axes from 2 on may come and go.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for graph in model.graphs():
            for norm in [node for node in graph if node.op_type == "BatchNormalization" and not node.domain]:
                self._unwrap(norm, changes)
        return model

    @staticmethod
    def _unwrap(norm: ir.Node, changes: Changes) -> None:
        wrapped = norm.inputs[0]
        widen = wrapped.producer() if wrapped is not None else None
        narrow = only_consumer(norm.outputs[0])
        if (
            wrapped is None
            or widen is None
            or narrow is None
            or (widen.op_type, narrow.op_type) != ("Unsqueeze", "Squeeze")
        ):
            return
        added, taken = axes_of(widen), axes_of(narrow)
        if not added or added != taken or min(added) < 2:
            changes.skip("the axes added and removed are not the same ones behind the channels")
            return
        output, result = norm.outputs[0], narrow.outputs[0]
        if not can_replace(result, output):
            changes.skip("the result is an output twice")
            return
        norm.replace_input_with(0, widen.inputs[0])
        output.type, output.shape = output.type or result.type, result.shape
        replace(result, output)
        remove(narrow)
        if not wrapped.uses() and not wrapped.is_graph_output():
            remove(widen)
        changes.made(f"BatchNormalization {output.name}")
