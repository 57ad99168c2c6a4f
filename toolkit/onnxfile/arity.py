"""How many inputs and outputs operators of the standard set take, over all of its versions.

OpenVINO 2026.4 reads inputs that a node does not have, and crashes. Source: onnx.defs of ONNX 1.23, with which
tests/onnxfile/test_arity.py compares this table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MANY = 2**31 - 1
# The newest set that the table knows.
NEWEST = 28

# (fewest and most inputs, fewest and most outputs): operators.
_TABLE: Mapping[tuple[int, int, int, int], str] = {
    (0, 0, 1, 1): (
        "Constant RandomNormal RandomUniform SequenceEmpty "
    ),
    (0, 1, 1, 1): (
        "Optional OptionalHasElement "
    ),
    (1, 1, 1, 1): (
        "Abs Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh AveragePool Bernoulli BitCast BitwiseNot "
        "BlackmanWindow Cast Ceil Celu ConcatFromSequence ConstantOfShape Cos Cosh DepthToSpace Det Elu Erf Exp "
        "EyeLike Flatten Floor Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool HammingWindow HannWindow "
        "HardSigmoid HardSwish Hardmax Identity ImageDecoder IsInf IsNaN LRN LeakyRelu Log LogSoftmax "
        "LpNormalization LpPool MeanVarianceNormalization Mish Multinomial Neg NonZero Not OptionalGetElement "
        "RandomNormalLike RandomUniformLike Reciprocal RegexFullMatch Relu Round Selu SequenceLength Shape Shrink "
        "Sigmoid Sign Sin Sinh Size Softmax Softplus Softsign SpaceToDepth Sqrt StringNormalizer Swish Tan Tanh "
        "TfIdfVectorizer ThresholdedRelu Transpose "
    ),
    (1, 1, 1, 2): (
        "MaxPool "
    ),
    (1, 1, 1, 4): (
        "Unique "
    ),
    (1, 1, 1, MANY): (
        "If "
    ),
    (1, 1, 2, 2): (
        "StringSplit "
    ),
    (1, 1, 3, 3): (
        "DynamicQuantizeLinear "
    ),
    (1, 2, 1, 1): (
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare Reshape SequenceErase SplitToSequence Squeeze Trilu Unsqueeze Upsample "
    ),
    (1, 2, 1, MANY): (
        "Split "
    ),
    (1, 2, 2, 2): (
        "TopK "
    ),
    (1, 3, 1, 1): (
        "Clip DFT "
    ),
    (1, 3, 1, 2): (
        "Dropout "
    ),
    (1, 4, 1, 1): (
        "Pad Resize "
    ),
    (1, 5, 1, 1): (
        "Slice "
    ),
    (1, MANY, 1, 1): (
        "Concat Einsum Max Mean Min SequenceConstruct Sum "
    ),
    (1, MANY, 1, MANY): (
        "Scan SequenceMap "
    ),
    (2, 2, 1, 1): (
        "Add AffineGrid And BitShift BitwiseAnd BitwiseOr BitwiseXor CastLike CenterCropPad Compress CumProd "
        "CumSum Div Equal Expand Gather GatherElements GatherND Greater GreaterOrEqual GridSample Less "
        "LessOrEqual MatMul MaxRoiPool Mod Mul Or PRelu Pow RMSNormalization ReverseSequence SequenceAt "
        "StringConcat Sub SwiGLU Xor "
    ),
    (2, 3, 1, 1): (
        "Conv ConvTranspose DequantizeLinear Gemm MaxUnpool NegativeLogLikelihoodLoss QuantizeLinear "
        "SequenceInsert TensorScatter Tile "
    ),
    (2, 3, 1, 2): (
        "SoftmaxCrossEntropyLoss "
    ),
    (2, 3, 1, 3): (
        "LayerNormalization "
    ),
    (2, 4, 1, 1): (
        "ConvInteger MatMulInteger STFT "
    ),
    (2, 4, 2, 2): (
        "CausalConvWithState "
    ),
    (2, 5, 1, 1): (
        "NonMaxSuppression "
    ),
    (2, MANY, 1, MANY): (
        "Loop "
    ),
    (3, 3, 1, 1): (
        "Col2Im GroupNormalization InstanceNormalization OneHot Range RoiAlign Scatter ScatterElements ScatterND "
        "Where "
    ),
    (3, 4, 1, 1): (
        "RotaryEmbedding "
    ),
    (3, 5, 1, 1): (
        "DeformConv "
    ),
    (3, 6, 0, 2): (
        "GRU RNN "
    ),
    (3, 6, 2, 2): (
        "LinearAttention "
    ),
    (3, 7, 1, 4): (
        "Attention "
    ),
    (3, 8, 0, 3): (
        "LSTM "
    ),
    (5, 5, 1, 1): (
        "MelWeightMatrix "
    ),
    (5, 5, 1, 5): (
        "BatchNormalization "
    ),
    (8, 8, 1, 1): (
        "QLinearMatMul "
    ),
    (8, 9, 1, 1): (
        "QLinearConv "
    ),
}  # fmt: skip
# What became an input later: operator: (since that version, fewest inputs).
_SINCE: Mapping[str, tuple[int, int]] = {
    "Pad": (11, 2), "Reshape": (5, 2), "Slice": (10, 3), "TopK": (10, 2), "Unsqueeze": (13, 2), "Upsample": (9, 2),
}  # fmt: skip
# Their first inputs may be left out, though others that follow may not.
_OPTIONAL_FIRST = frozenset({"Loop", "Scan"})
ARITY: Mapping[str, tuple[int, int, int, int]] = {
    name: counts for counts, names in _TABLE.items() for name in names.split()
}


def check_arity(operator: str, inputs: Sequence[str], outputs: Sequence[str], opset: int) -> None:
    """Check a node of the standard set; operators that are not in it are the engine's business.

    Args:
        operator: its type.
        inputs: names, empty for those that are left out.
        outputs: likewise.
        opset: version of the standard set.

    Raises:
        ValueError: there are too few or too many, or one that is required is left out.
    """
    if operator not in ARITY:
        return
    least_in, most_in, least_out, most_out = ARITY[operator]
    if opset > NEWEST:  # what is newer than the table may take more
        most_in = most_out = MANY
    since, later = _SINCE.get(operator, (0, 0))
    if opset >= since:
        least_in = max(least_in, later)
    left_out = operator not in _OPTIONAL_FIRST and "" in inputs[:least_in]
    if not least_in <= len(inputs) <= most_in or left_out:
        raise ValueError(f"a node {operator} with inputs {list(inputs)[:8]}, which wants {_range(least_in, most_in)}")
    if not least_out <= len(outputs) <= most_out:
        raise ValueError(f"a node {operator} with {len(outputs)} outputs, which has {_range(least_out, most_out)}")


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} or more" if most == MANY else f"{least} to {most}"
