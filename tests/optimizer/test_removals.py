"""Passes that take away what changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.building import build, normal, run, types
from tests.optimizer.applying import apply
from toolkit.optimizer.passes.deduplicate_initializers import DeduplicateInitializers
from toolkit.optimizer.passes.detach_initializers import DetachInitializers
from toolkit.optimizer.passes.inline_constant_if import InlineConstantIf
from toolkit.optimizer.passes.lift_constants import LiftConstants
from toolkit.optimizer.passes.remove_casts import RemoveCasts, lossless
from toolkit.optimizer.passes.remove_dead_code import RemoveDeadCode
from toolkit.optimizer.passes.remove_identity import RemoveIdentity

X = normal(2, 3)


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("t = Identity(x) y = Relu(t)", {}),
        ("t = Relu(x) y = Identity(t)", {}),
        ("t = Dropout(x) y = Relu(t)", {}),
        ("t = Dropout(x, r, off) y = Relu(t)", {"r": np.float32(0.5), "off": np.bool_(False)}),
        ("t = Transpose<perm=[0, 1]>(x) y = Relu(t)", {}),
        ("t = Concat<axis=0>(x) y = Relu(t)", {}),
        ("t = Sum(x) y = Relu(t)", {}),
        ("t = Pad(x, p) y = Relu(t)", {"p": np.zeros(4, np.int64)}),
    ],
)
def test_nodes_that_hand_on_their_input_go(body: str, weights: dict[str, Any]) -> None:
    model = build(f"g (float[2, 3] x) => (float[2, 3] y) {{ {body} }}", weights=weights)
    result, _ = apply(RemoveIdentity(), model, changed=1, x=X)
    assert types(result) == ["Relu"]


def test_an_identity_that_names_an_output_stays_and_says_why() -> None:
    direct = build("g (float[2, 3] x) => (float[2, 3] y) { y = Identity(x) }")
    _, report = apply(RemoveIdentity(), direct, changed=0, x=X)
    assert report.skipped == {"it names an output that its input cannot stand for": 1}
    twice = build("g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) { y = Relu(x) z = Identity(y) }")
    apply(RemoveIdentity(), twice, changed=0, x=X)


def test_an_identity_inside_a_branch_that_returns_an_outer_value_stays() -> None:
    model = build(
        """g (bool c, float[2, 3] x) => (float[2, 3] y) {
            t = Neg(x)
            y = If (c) <then_branch = one () => (float[2, 3] a) { a = Identity(t) },
                        else_branch = two () => (float[2, 3] b) { i = Identity(x) b = Relu(i) }>
        }"""
    )
    result, report = apply(RemoveIdentity(), model, changed=1, c=np.array(True), x=X)
    assert report.skipped == {"it names an output that its input cannot stand for": 1}
    np.testing.assert_array_equal(run(result, c=np.array(False), x=X)[0], np.maximum(X, 0))


@pytest.mark.parametrize(
    "body", ["t = Dropout(x, r, on) y = Relu(t)", "t, m = Dropout(x) y = Relu(t) f = Cast<to=1>(m)"]
)
def test_dropout_that_does_something_stays(body: str) -> None:
    model = build(
        f"g (float[2, 3] x) => (float[2, 3] y) {{ {body} }}", weights={"r": np.float32(0.5), "on": np.bool_(True)}
    )
    apply(RemoveIdentity(), model, changed=0)


def test_casts_that_lose_nothing_go() -> None:
    model = build(
        "g (float[2, 3] x) => (float[2, 3] y) { a = Cast<to=1>(x) b = Cast<to=11>(a) c = Cast<to=1>(b) y = Relu(c) }"
    )
    # a is float already; c reads the input instead of b and is then float already; b is dead.
    result, _ = apply(RemoveCasts(), model, changed=3, x=X)
    assert types(result) == ["Cast", "Relu"]
    assert types(apply(RemoveDeadCode(), result, changed=1, x=X)[0]) == ["Relu"]


def test_a_cast_that_rounds_stays() -> None:
    model = build("g (float[2, 3] x) => (float[2, 3] y) { a = Cast<to=10>(x) y = Cast<to=1>(a) }")
    _, report = apply(RemoveCasts(), model, changed=0, x=X)
    assert report.skipped == {"the first of two casts rounds": 1}


FLOATS_AND_INTEGERS = [
    ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32,
    ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE,
]  # fmt: skip


@pytest.mark.parametrize("source", FLOATS_AND_INTEGERS, ids=str)
def test_lossless_is_what_numpy_finds(source: ir.DataType) -> None:
    """Every value of 8- and 16-bit types, the extremes of wider ones, there and back."""
    dtype = source.numpy()
    if source.bitwidth <= 16:
        width = np.uint8 if source.bitwidth <= 8 else np.uint16
        values = (
            np.arange(2**source.bitwidth).astype(width).view(dtype)
            if source != ir.DataType.BOOL
            else np.array([False, True])
        )
    elif dtype.kind == "i":
        values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 2**24 + 1], dtype)
    else:
        values = np.array([np.finfo(dtype).max, np.finfo(dtype).tiny, 1 + np.finfo(dtype).eps], dtype)
    with np.errstate(all="ignore"):
        values = values[np.isfinite(values.astype(np.float64))]
    for target in FLOATS_AND_INTEGERS[1:]:
        with np.errstate(all="ignore"):
            back = values.astype(target.numpy()).astype(np.float64)
        assert lossless(source, target) == bool((back == values.astype(np.float64)).all()), target


def test_dead_nodes_weights_functions_and_imports_go() -> None:
    message = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1, "com.unused" : 1]>
        g (bool c, float[2, 3] x) => (float[2, 3] y)
        <float[3] dead = {1, 2, 3}, float[3] alive = {4, 5, 6}> {
            d = Add(x, dead) e = Neg(d)
            unused = If (c) <then_branch = one () => (float[2, 3] a) { a = Exp(e) },
                             else_branch = two () => (float[2, 3] b) { b = own.F(e) }>
            y = If (c) <then_branch = three () => (float[2, 3] p) { q = Exp(x) p = Add(x, alive) },
                        else_branch = four () => (float[2, 3] r) { r = Relu(x) }>
        }
        <domain: "own", opset_import: ["" : 17]> F (x) => (y) { y = Neg(x) }
    """)
    model = ir.serde.deserialize_model(message)
    # The dead If and the two nodes that it alone read, q, one weight, then the function and two operator sets.
    result, _ = apply(RemoveDeadCode(), model, changed=8, c=np.array(True), x=X)
    assert types(result) == ["If"]
    assert list(result.graph.initializers) == ["alive"]
    assert not result.functions
    assert list(result.opset_imports) == [""]


def test_constants_become_initializers() -> None:
    model = build(
        """g (bool c, float[2, 3] x) => (float[2, 3] y, int64[2] z) {
            one = Constant<value_float=1.0>() t = Add(x, one)
            y = If (c) <then_branch = one () => (float[2, 3] a) {
                            k = Constant<value = float[3] {1, 2, 3}>() a = Mul(t, k) },
                        else_branch = two () => (float[2, 3] b) { b = Relu(t) }>
            z = Constant<value_ints=[7, 8]>()
        }"""
    )
    result, report = apply(LiftConstants(), model, changed=2, c=np.array(True), x=X)
    assert report.skipped == {"the constant is an output": 1}
    assert [list(graph.initializers) for graph in result.graphs()] == [["one"], ["k"], []]


def test_weights_that_are_inputs_are_no_inputs_any_more() -> None:
    model = build(
        "g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }", opset=8, ir_version=3, weights={"w": normal(4, 3)}
    )
    detached, report = DetachInitializers()(model.clone())
    assert report.changed == 1
    assert [value.name for value in detached.graph.inputs] == ["x"]
    assert detached.ir_version == 4
    np.testing.assert_array_equal(run(detached, x=normal(2, 4))[0], run(model, x=normal(2, 4))[0])


def test_equal_weights_are_kept_once() -> None:
    weights = {"a": X, "b": X.copy(), "c": X + 1, "d": X.astype(np.float16), "e": X.reshape(3, 2)}
    model = build(
        """g (float[2, 3] x) => (float[2, 3] y, float[3, 2] z) {
            s = Add(x, a) t = Mul(s, b) u = Sub(t, c) h = Cast<to=1>(d) y = Add(u, h) z = Identity(e)
        }""",
        weights=weights,
    )
    result, report = apply(DeduplicateInitializers(), model, changed=1, x=X)
    assert list(result.graph.initializers) == ["a", "c", "d", "e"]
    assert report.details == ("b is a",)


def test_nan_and_negative_zero_are_compared_by_their_bytes() -> None:
    weights = {
        "a": np.array([np.nan, 0.0], np.float32),
        "b": np.array([np.nan, 0.0], np.float32),
        "c": np.array([np.nan, -0.0], np.float32),
    }
    model = build("g (float[2] x) => (float[2] y) { s = Add(x, a) t = Add(s, b) y = Div(t, c) }", weights=weights)
    apply(DeduplicateInitializers(), model, changed=1, x=normal(2))


@pytest.mark.parametrize("condition", [True, False])
def test_the_branch_that_is_always_taken_takes_the_place_of_the_if(condition: bool) -> None:
    model = build(
        """g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) {
            v = Neg(x)
            y, w = If (c) <then_branch = one () => (float[2, 3] a, float[2, 3] u) {
                               t = Neg(v) a = Relu(t) u = Identity(x) },
                           else_branch = two () => (float[2, 3] b, float[2, 3] u) {
                               t = Exp(v) b = Sqrt(t) u = Identity(b) }>
            z = Add(w, y)
        }""",
        weights={"c": np.array(condition)},
    )
    result, _ = apply(InlineConstantIf(), model, changed=1, x=X)
    assert types(result) == (
        ["Neg", "Neg", "Relu", "Identity", "Add"] if condition else ["Neg", "Exp", "Sqrt", "Identity", "Add"]
    )


def test_a_branch_that_returns_a_weight_or_is_nested_can_be_inlined() -> None:
    model = build(
        """g (float[2, 3] x) => (float[2, 3] y) {
            y = If (c) <then_branch = one () => (float[2, 3] a) {
                    a = If (d) <then_branch = in () => (float[2, 3] k) <float[2, 3] k = {1, 2, 3, 4, 5, 6}> { },
                                else_branch = no () => (float[2, 3] e) { e = Exp(x) }> },
                else_branch = two () => (float[2, 3] b) { b = Relu(x) }>
        }""",
        weights={"c": np.array(True), "d": np.array(True)},
    )
    result, _ = apply(InlineConstantIf(), model, changed=2, x=X)
    assert types(result) == ["Identity"]
