"""Nodes that may answer differently each time."""

from __future__ import annotations

import onnx_ir as ir

from toolkit.graph.constants import constant_array
from toolkit.graph.edit import subgraphs

# Source: the operators whose documentation in onnx/docs/Operators.md says that they draw random numbers.
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def is_random(node: ir.Node) -> bool:
    """Whether two runs of ``node`` may differ; of operators that are not standard nobody knows."""
    if node.op_type in _RANDOM or node.domain:
        return True
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        training = constant_array(node.inputs[2])
        return training is None or bool(training.any())
    return any(is_random(inner) for graph in subgraphs(node) for inner in graph)
