"""The precision a model file was written in, by its operators first and by where its bytes are second."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from toolkit.graph.walk import every_node, every_tensor

# Operators that compute with, or unpack, narrow integers. Source: onnx Operators.md, onnxruntime ContribOperators.md.
_QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv",
    "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention", "QGemm", "MatMulNBits",
    "MatMulBnb4", "GatherBlockQuantized", "DynamicQuantizeLSTM",
}  # fmt: skip
# Weights of these are packed into bytes; how many bits one takes is an attribute.
_PACKED = {"MatMulNBits": 1, "MatMulBnb4": 1, "GatherBlockQuantized": 0}
_FOUR_BITS = {ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2, ir.DataType.FLOAT4E2M1}
_EIGHT_BITS = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}
_FLOATS = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "float64",
}


def headline(model: ir.Model) -> tuple[str, bool]:
    """Precision and whether the model is quantized.

    A model with any quantizing operator is "int8" or "int4", by which holds more weights (weight-only models included);
    any other is the float type that holds most bytes, or that of its first float input when it has no weights.
    """
    if any(is_quantizing(node) for node in every_node(model)):
        return _quantized(model), True
    return _floating(model), False


def is_quantizing(node: ir.Node) -> bool:
    return node.op_type in _QUANTIZED or node.op_type.startswith("QLinear")


def _quantized(model: ir.Model) -> str:
    weights: Counter[str] = Counter()
    packed: set[str | None] = set()
    for node in every_node(model):
        if node.op_type in _PACKED:
            narrow = node.attributes.get_int("bits", 4) < 8
            value = node.inputs[_PACKED[node.op_type]]
            if value is not None and value.const_value is not None:
                packed.add(value.name)
                weights["int4" if narrow else "int8"] += value.const_value.nbytes * (2 if narrow else 1)
    for tensor in every_tensor(model):
        if tensor.name not in packed:
            weights["int4"] += tensor.size if tensor.dtype in _FOUR_BITS else 0
            weights["int8"] += tensor.size if tensor.dtype in _EIGHT_BITS else 0
    return "int4" if weights["int4"] > weights["int8"] else "int8"


def _floating(model: ir.Model) -> str:
    held: Counter[str] = Counter()
    for tensor in every_tensor(model):
        if tensor.dtype in _FLOATS:
            held[_FLOATS[tensor.dtype]] += tensor.nbytes
    if held:
        return max(_FLOATS.values(), key=lambda name: held[name])
    types = [_FLOATS[value.dtype] for value in model.graph.inputs if value.dtype in _FLOATS]
    return types[0] if types else "float32"
