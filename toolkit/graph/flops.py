"""Arithmetic of one node, by operator. Source: the operators' definitions in onnx/docs/Operators.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

Sizes = Sequence[tuple[int, ...] | None]
Rule = Callable[[ir.Node, Sizes, Sizes], int]

# Hand on their input under another shape; nothing is moved.
VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout", "Shape", "Size"}
# Move, choose or convert elements; no arithmetic.
FREE = VIEWS | {
    "Transpose", "Concat", "Split", "Slice", "Gather", "GatherND", "GatherElements", "ScatterND", "ScatterElements",
    "Pad", "Expand", "Tile", "Cast", "CastLike", "Constant", "ConstantOfShape", "Where", "Range", "OneHot", "NonZero",
    "DepthToSpace", "SpaceToDepth", "Trilu", "EyeLike", "TopK", "ArgMax", "ArgMin", "Compress", "ReverseSequence",
    "Unique", "NonMaxSuppression", "Scatter", "Upsample", "Multinomial", "Bernoulli", "RandomNormal",
    "RandomNormalLike", "RandomUniform", "RandomUniformLike", "SequenceConstruct", "SequenceAt", "SplitToSequence",
    "ConcatFromSequence", "GatherBlockQuantized",
}  # fmt: skip

# One operation per element of the result.
ELEMENTWISE = {
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot",
    "BitwiseOr", "BitwiseXor", "Ceil", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu",
    "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish",
    "Tan", "Tanh", "ThresholdedRelu", "Xor", "CumSum", "FastGelu", "QuickGelu", "BiasGelu", "Celu",
}  # fmt: skip
# Operations per element of the first input: a sum, a difference, a square, a quotient…
_PER_INPUT = {
    "Softmax": 5, "LogSoftmax": 5, "Hardmax": 2, "BatchNormalization": 2, "InstanceNormalization": 7,
    "LayerNormalization": 8, "SimplifiedLayerNormalization": 5, "SkipLayerNormalization": 9, "GroupNormalization": 8,
    "RMSNormalization": 5, "LpNormalization": 3, "MeanVarianceNormalization": 7, "LRN": 5, "GlobalAveragePool": 1,
    "GlobalMaxPool": 1, "GlobalLpPool": 2, "QuantizeLinear": 3, "DequantizeLinear": 2, "DynamicQuantizeLinear": 5,
    "ReduceL1": 2, "ReduceL2": 2, "ReduceLogSum": 1, "ReduceLogSumExp": 2, "ReduceMax": 1, "ReduceMean": 1,
    "ReduceMin": 1, "ReduceProd": 1, "ReduceSum": 1, "ReduceSumSquare": 2, "RotaryEmbedding": 3,
}  # fmt: skip
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def flops_of(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int | None:
    """Operations of ``node`` at these shapes; None where there is no rule for it."""
    if node.op_type in ELEMENTWISE:
        return _count(outputs, 0)
    if node.op_type in _PER_INPUT:
        return _PER_INPUT[node.op_type] * _count(inputs, 0)
    rule = _RULES.get(node.op_type)
    return None if rule is None else rule(node, inputs, outputs)


def _shape(sizes: Sizes, index: int) -> tuple[int, ...]:
    """Shape of an input or output; () for one that is not there."""
    return (sizes[index] or ()) if index < len(sizes) else ()


def _count(sizes: Sizes, index: int) -> int:
    return math.prod(_shape(sizes, index))


def _has(sizes: Sizes, index: int) -> bool:
    return index < len(sizes) and sizes[index] is not None


def _conv(weight: int, bias: int) -> Rule:
    """Every output element is a product sum over one filter; ``weight`` and ``bias`` are indices of inputs."""

    def rule(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
        per_output = 2 * math.prod(_shape(inputs, weight)[1:])
        return _count(outputs, 0) * (per_output + _has(inputs, bias))

    return rule


def share_on_data(node: ir.Node, image: Sequence[int], kernel: Sequence[int], outputs: Sequence[int]) -> float:
    """Part of a Conv's multiplications that meet the image, not its padding; sizes are those of the spatial axes."""
    axes = range(len(outputs))
    strides = node.attributes.get_ints("strides") or (1,) * len(axes)
    dilations = node.attributes.get_ints("dilations") or (1,) * len(axes)
    pads = list(node.attributes.get_ints("pads") or (0,) * 2 * len(axes))
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    share = 1.0
    for axis in axes:
        reach = (outputs[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        missing = max(0, reach - image[axis])
        begin = {"SAME_UPPER": missing // 2, "SAME_LOWER": -(-missing // 2)}.get(str(automatic), pads[axis])
        firsts = np.arange(outputs[axis])[:, None] * strides[axis] - begin
        taps = firsts + np.arange(kernel[axis]) * dilations[axis]
        share *= float(np.mean((taps >= 0) & (taps < image[axis]))) if taps.size else 1.0
    return share


def _conv_transpose(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    return 2 * _count(inputs, 0) * math.prod(_shape(inputs, 1)[1:]) + _has(inputs, 2) * _count(outputs, 0)


def _matmul(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    return 2 * _count(outputs, 0) * _shape(inputs, 0)[-1]


def _gemm(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    inner = _shape(inputs, 0)[0 if node.attributes.get_int("transA", 0) else 1]
    return _count(outputs, 0) * (2 * inner + _has(inputs, 2))


def _einsum(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    """Every combination of the letters, once; an ellipsis is taken for the axes of the output that no letter names."""
    left = node.attributes.get_string("equation", "").replace(" ", "").split("->")[0]
    letters: dict[str, int] = {}
    for index, term in enumerate(left.split(",")):
        if "." in term:
            return 2 * max(_count(inputs, 0), _count(outputs, 0))
        letters.update(zip(term, _shape(inputs, index), strict=True))
    return 2 * int(math.prod(letters.values()))


def _recurrent(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    """Input and recurrent products of every gate, step and direction; the gates' functions are left out."""
    directions, rows, width = _shape(inputs, 1)
    hidden = rows // _GATES[node.op_type]
    steps_times_batch = math.prod(_shape(inputs, 0)[:2])
    return int(2 * steps_times_batch * directions * rows * (width + hidden))


def _pool(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    return _count(outputs, 0) * int(math.prod(node.attributes.get_ints("kernel_shape") or (1,)))


def _resize(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    taps = {"nearest": 0, "linear": 1 << max(0, len(_shape(inputs, 0)) - 2), "cubic": 16}
    return 2 * _count(outputs, 0) * taps.get(str(node.attributes.get_string("mode", "nearest")), 0)


def _attention(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    """Scores and their product with the values: two products over queries, keys and all heads' width."""
    queries, keys = _shape(inputs, 0), _shape(inputs, 1)
    return 4 * math.prod(queries) * keys[-2]


def _packed_matmul(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    return 2 * _count(outputs, 0) * int(node.attributes.get_int("K", 0))


def _window_sum(node: ir.Node, inputs: Sizes, outputs: Sizes) -> int:
    return 2 * _count(outputs, 0)


_RULES: dict[str, Rule] = {
    "Conv": _conv(1, 2),
    "FusedConv": _conv(1, 2),
    "ConvInteger": _conv(1, 99),
    "QLinearConv": _conv(3, 8),
    "DeformConv": _conv(1, 3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "DynamicQuantizeMatMul": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "MatMulNBits": _packed_matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
    "GridSample": _window_sum,
    "Attention": _attention,
    "MultiHeadAttention": _attention,
}
