"""Costs that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graph.building import build, normal
from toolkit.errors import UsageError
from toolkit.graph.cost import cost
from toolkit.graph.node_cost import NodeCosts


@pytest.mark.parametrize(
    ("text", "weights", "flops"),
    [
        ("(float[8, 4] x) => (float[8, 3] y) { y = MatMul(x, w) }", {"w": normal(4, 3)}, 2 * 8 * 4 * 3),
        (
            "(float[8, 4] x) => (float[8, 3] y) { y = Gemm<transB=1>(x, w, b) }",
            {"w": normal(3, 4), "b": normal(3)},
            2 * 8 * 4 * 3 + 8 * 3,
        ),
        (
            "(float[1, 6, 9, 9] x) => (float[a, b, c, d] y) { y = Conv<group=3, strides=[2, 2]>(x, w, b) }",
            {"w": normal(12, 2, 3, 3), "b": normal(12)},
            12 * 4 * 4 * (2 * 2 * 3 * 3 + 1),
        ),
        (
            "(float[1, 6, 5] x) => (float[a, b, c] y) { y = ConvTranspose<strides=[2]>(x, w) }",
            {"w": normal(6, 4, 3)},
            2 * 6 * 5 * 4 * 3,
        ),
        (
            "(float[10, 2, 3] x) => (float[a, b, c, d] y) { y = LSTM<hidden_size=5>(x, w, r) }",
            {"w": normal(1, 20, 3), "r": normal(1, 20, 5)},
            2 * 10 * 2 * 20 * (3 + 5),
        ),
        ("(float[2, 3, 4] x) => (float[a, b, c] y) { y = Softmax(x) }", {}, 5 * 24),
        ("(float[2, 3, 4] x) => (float[a, b, c] y) { y = Relu(x) }", {}, 24),
        (
            "(float[2, 3, 8] x) => (float[a, b, c] y) { y = MaxPool<kernel_shape=[4], strides=[4]>(x) }",
            {},
            2 * 3 * 2 * 4,
        ),
        (
            '(float[2, 3, 4] x) => (float[a, b, c] y) { y = Einsum<equation="bij,bkj->bik">(x, x) }',
            {},
            2 * 2 * 3 * 3 * 4,
        ),
        ("(float[2, 3, 4] x) => (float[a, b, c] y) { y = Transpose(x) }", {}, 0),
    ],
    ids=["MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "Softmax", "Relu", "MaxPool", "Einsum", "Transpose"],
)
def test_arithmetic(text: str, weights: dict[str, Any], flops: int) -> None:
    found = cost(build(f"g {text}", weights=weights))
    assert found.flops == flops
    assert found.uncounted == {}


def test_bytes_of_weights_and_activations() -> None:
    found = cost(
        build("g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", weights={"w": normal(4, 3)}), {"n": 8}
    )
    assert (found.weight_bytes, found.activation_bytes) == (4 * 12, 4 * (8 * 4 + 8 * 3))
    assert found.dims == {"n": 8}


def test_a_table_is_read_only_where_it_is_gathered_from() -> None:
    model = build("g (int64[n] ids) => (float[n, 16] y) { y = Gather(w, ids) }", weights={"w": normal(1000, 16)})
    assert cost(model, {"n": 3}).weight_bytes == 3 * 16 * 4


def test_named_dims_take_the_sizes_given() -> None:
    model = build("g (float[batch, n] x) => (float[batch, n] y) { y = Relu(x) }")
    assert cost(model, {"batch": 2, "n": 5}).flops == 10
    assert cost(model).flops == 16, "a batch of one, and the default length"
    with pytest.raises(UsageError, match="no such dim"):
        cost(model, {"m": 1})


def test_shapes_computed_from_shapes_are_followed() -> None:
    model = build(
        """g (float[n, 6] x) => (float[a, b] y) {
            s = Shape(x) zero = Constant<value_int=0>() n = Gather(s, zero) two = Constant<value_ints=[2]>()
            axis = Constant<value_ints=[0]>() one = Unsqueeze(n, axis) twice = Mul(one, two)
            rest = Constant<value_ints=[-1]>() shape = Concat<axis=0>(twice, rest)
            r = Reshape(x, shape) y = MatMul(r, w)
        }""",
        weights={"w": normal(3, 7)},
    )
    assert cost(model, {"n": 4}).flops == 2 * 8 * 3 * 7


def test_the_costlier_branch_counts_and_loops_are_said_to_be_left_out() -> None:
    branches = build(
        """g (bool c, float[4, 4] x) => (float[4, 4] y) {
            y = If (c) <then_branch = one () => (float[4, 4] a) { a = MatMul(x, x) },
                        else_branch = two () => (float[4, 4] b) { b = Relu(x) }>
        }"""
    )
    assert cost(branches).flops == 2 * 64
    loop = build(
        """g (int64 m, bool c, float[4] x) => (float[4] y) {
            y = Loop (m, c, x) <body = b (int64 i, bool k, float[4] s) => (bool o, float[4] t) {
                o = Identity(k) t = Relu(s) }>
        }"""
    )
    assert cost(loop).uncounted == {"Loop: how often its body runs is not known": 1}


def test_functions_are_counted_by_what_is_inside() -> None:
    import onnx.parser
    import onnx_ir as ir

    message = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[4, 4] x) => (float[4, 4] y) { y = own.Square(x) }
        <domain: "own", opset_import: ["" : 17]> Square (x) => (y) { y = MatMul(x, x) }
    """)
    assert cost(ir.serde.deserialize_model(message)).flops == 128


def test_nodes_that_nobody_knows_are_said_to_be_left_out() -> None:
    model = build(
        "g (float[4] x) => (float[a] y) { t = com.x.Odd(x) u = com.x.Odd(t) y = Relu(u) }", imports=', "com.x" : 1'
    )
    assert cost(model).uncounted == {"Relu: a shape is not known": 1, "com.x.Odd: a shape is not known": 2}
    assert cost(build("g (float[4] x) => (int64[1, n] y) { y = NonZero(x) }")).uncounted == {
        "NonZero: a shape is not known": 1
    }


def test_half_precision_and_packed_types_take_less_room() -> None:
    model = build("g (float16[10] x) => (float16[10] y) { y = Relu(x) }")
    assert cost(model).activation_bytes == 2 * 20
    quantized = build(
        "g (float[n, 4] x) => (float[n, 3] y) { d = DequantizeLinear(w, s) y = MatMul(x, d) }",
        weights={"w": np.ones((4, 3), np.int8), "s": np.float32(1)},
    )
    by_operator = {item.operator: item for item in cost(quantized, {"n": 1}).operators}
    assert by_operator["DequantizeLinear"].weight_bytes == 12 + 4


@pytest.mark.parametrize(
    ("attributes", "share"),
    [
        ("kernel_shape=[3,3]", 1.0),
        ("pads=[1,1,1,1]", (19 / 21) ** 2),  # of 3 taps at 7 places, 2 miss a row of 7
        ('auto_pad="SAME_UPPER"', (19 / 21) ** 2),
        ("pads=[0,0,2,0]", (5 * 3 + 2 + 1) / 21),  # 7 places down, of which the last two meet 2 and 1 rows
        ("pads=[1,1,1,1], strides=[2,2]", (10 / 12) ** 2),  # 4 places, the first and the last miss one each
        ("pads=[2,2,2,2], dilations=[2,2]", (17 / 21) ** 2),  # places 0, 1, 5 and 6 miss one each
    ],
)
def test_multiplications_by_padding_are_not_counted_in_what_a_kernel_does(attributes: str, share: float) -> None:
    text = f"g (float[1,2,7,7] x) => (float[1,4,h,v] y) {{ y = Conv<{attributes}>(x, w) }}"
    model = build(text, weights={"w": normal(4, 2, 3, 3)})
    model.graph[0].name = "conv"
    whole = cost(model).flops
    assert NodeCosts(model, {}).region(["conv"]).flops == pytest.approx(whole * share, abs=1)
