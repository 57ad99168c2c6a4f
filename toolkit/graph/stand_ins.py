"""Standard nodes in place of common ones of other domains, so that onnx's shape inference gets past them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

# Element by element: the result has the shape of the first input.
_SAME_SHAPE = {"Gelu", "FastGelu", "QuickGelu", "BiasGelu", "SimplifiedLayerNormalization"}


def stand_in(model: ir.Model) -> None:
    """Replace nodes in place by ones with the same shapes and types; the numbers are others: for inference only."""
    for graph in model.graphs():
        for node in graph:
            if node.domain == "com.microsoft" and (rule := _RULES.get(node.op_type)) is not None:
                rule(node, model.graph)


def _elementwise(node: ir.Node, main: ir.Graph) -> None:
    _become(node, "Identity", node.inputs[0])


def _matmul(node: ir.Node, main: ir.Graph) -> None:
    """MatMulNBits: (…, K) times (K, N), whose packed form says nothing to a MatMul."""
    rows, columns = node.attributes.get_int("K", 0), node.attributes.get_int("N", 0)
    weight = ir.Value(
        name=f"{node.outputs[0].name}__unpacked",
        type=ir.TensorType((node.inputs[0].dtype if node.inputs[0] else None) or ir.DataType.FLOAT),
        shape=ir.Shape([rows, columns]),
    )
    main.inputs.append(weight)
    _become(node, "MatMul", node.inputs[0], weight)


def _become(node: ir.Node, op_type: str, *inputs: ir.Value | None) -> None:
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    if all(not output.uses() for output in node.outputs[1:]):
        node.resize_outputs(1)
    node.attributes.clear()
    node.domain, node.op_type = "", op_type


_RULES: dict[str, Callable[[ir.Node, ir.Graph], None]] = {
    "MatMulNBits": _matmul,
    **dict.fromkeys(_SAME_SHAPE, _elementwise),
}
