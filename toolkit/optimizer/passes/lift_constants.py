"""Constant nodes, which say the same as initializers in more words."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.constants import become_constant
from toolkit.optimizer.base import Changes, Pass


@final
class LiftConstants(Pass):
    """Turn Constant nodes into initializers of their graph, so that every weight is found in one place.

    Bodies of functions cannot hold initializers: their constants stay nodes.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        for graph in model.graphs():
            for node in [node for node in graph if node.op_type == "Constant" and not node.domain]:
                output = node.outputs[0]
                tensor = ir.convenience.get_const_tensor(output)
                if tensor is None or tensor.dtype == ir.DataType.STRING:
                    changes.skip("text or sparse numbers")
                elif output.is_graph_output():
                    changes.skip("the constant is an output")
                else:
                    name = output.name
                    become_constant(node, tensor)
                    changes.made(str(name))
        return model
