"""Weights that are there more than once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import final

import onnx_ir as ir

from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass

Key = tuple[ir.DataType, tuple[int, ...]]


@final
class DeduplicateInitializers(Pass):
    """Keep one of several initializers of a graph that have the same type, shape and bytes, whatever their names."""

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for graph in every_graph(model):
            alike: dict[Key, list[ir.Value]] = defaultdict(list)
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.dtype == ir.DataType.STRING or value.is_graph_input():
                    continue
                alike[tensor.dtype, tuple(int(dim) for dim in tensor.shape)].append(value)
            for values in alike.values():
                if len(values) > 1:  # only then is it worth reading them
                    _merge(graph, values, changes)
        return model


def _merge(graph: ir.Graph, values: list[ir.Value], changes: Changes) -> None:
    first: dict[bytes, ir.Value] = {}
    for value in values:
        assert value.const_value is not None
        kept = first.setdefault(hashlib.sha256(value.const_value.tobytes()).digest(), value)
        if kept is value:
            continue
        if value.is_graph_output():
            changes.skip("the copy is an output")
            continue
        value.replace_all_uses_with(kept)
        graph.initializers.pop(str(value.name))
        changes.made(f"{value.name} is {kept.name}")
