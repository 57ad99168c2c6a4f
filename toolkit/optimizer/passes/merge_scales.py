"""One scale for the queries and one for the keys."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import onnx_ir as ir

from toolkit.graph.constants import constant_array, only_consumer
from toolkit.graph.edit import Editor
from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass
from toolkit.tensors import Array


class _Scaled(NamedTuple):
    source: ir.Value
    factor: Array


@final
class MergeScales(Pass):
    """MatMul(Mul(q, a), Mul(k, b)) with single numbers a and b becomes MatMul(Mul(q, a * b), k).

    ``scaled_dot_product_attention`` scales both sides by the root of the scale, so that float16 products do not
    overflow; on the queries alone the whole scale bounds the products as well. A rounding moves, nothing else.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        editor = Editor(model)
        for graph in every_graph(model):
            for product in [node for node in graph if node.op_type == "MatMul" and not node.domain]:
                left, right = _scaled(product.inputs[0]), _scaled(product.inputs[1])
                if left is not None and right is not None:
                    self._merge(editor, product, left, right, changes)
        return model

    @staticmethod
    def _merge(editor: Editor, product: ir.Node, left: _Scaled, right: _Scaled, changes: Changes) -> None:
        exact = left.factor.astype(np.float64) * right.factor.astype(np.float64)
        scale = np.asarray(exact, left.factor.dtype)
        if not np.isfinite(scale) or abs(float(scale)) < np.finfo(np.float16).tiny:
            changes.skip("the product of the scales has no exact place in its type")
            return
        name = product.outputs[0].name or "product"
        factor = editor.constant(scale, f"{name}_scale", product)
        scaled = editor.before(product, "Mul", [left.source, factor], name=f"{name}_scaled")
        scaled.type = left.source.type
        scaled.shape = left.source.shape
        product.replace_input_with(0, scaled)
        product.replace_input_with(1, right.source)
        changes.made(f"scales of {name}")


def _scaled(value: ir.Value | None) -> _Scaled | None:
    """What is multiplied by a single number, which is read by the MatMul alone."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != "Mul" or node.domain or only_consumer(value) is None:
        return None
    for source, other in (node.inputs, node.inputs[::-1]):
        factor = constant_array(other)
        if source is not None and factor is not None and factor.size == 1 and factor.ndim <= 1:
            return _Scaled(source, factor.reshape(()))
    return None
