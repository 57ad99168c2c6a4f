"""Masks that hide nothing, sums with zero, products with one: gone where no shape, type or number depends on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.building import build, check, normal, run, types
from tests.optimizer.applying import apply
from toolkit.graph.equal_sizes import EqualSizes
from toolkit.optimizer.api import optimize_model
from toolkit.optimizer.passes.inline_constant_where import InlineConstantWhere
from toolkit.optimizer.passes.remove_dead_code import RemoveDeadCode
from toolkit.optimizer.passes.remove_neutral_operands import RemoveNeutralOperands
from toolkit.optimizer.passes.uniform import Uniform

X = normal(2, 3, 4)
SHAPE = "another shape"
WEIGHTS: dict[str, Any] = {
    "on": np.ones((1, 3, 1), bool), "off": np.zeros((1, 3, 1), bool), "mixed": np.array([[[1], [1], [0]]], bool),
    "yes": np.array(True), "zero": np.float32(0), "one": np.float32(1), "low": np.float32(-np.inf),
    "negative": np.float32(-0.0), "zeros": np.zeros((1, 3, 1), np.float32), "ones": np.ones((1, 3, 1), np.float32),
    "signs": np.array([[[0.0], [-0.0], [0.0]]], np.float32), "wide": np.zeros((5, 1, 1, 1), np.float32),
    "vector": np.zeros(4, np.float32), "single": np.zeros(1, np.float32), "almost": np.array([[[0], [0], [1e-30]]]),
    "nan": np.float32(np.nan), "a1": np.array([1]), "three": np.array([3]), "four": np.array([4]),
    "two_three_four": np.array([2, 3, 4]), "empty": np.zeros((0,), np.float32),
}  # fmt: skip
WEIGHTS["almost"] = WEIGHTS["almost"].astype(np.float32)


def model(body: str, head: str = "float[n, 3, 4] x", result: str = "float[n, 3, 4] y", **weights: Any) -> ir.Model:
    return build(f"g ({head}) => ({result}) {{ {body} }}", weights={**WEIGHTS, **weights}, opset=18)


# Sums and products.

GOES = {
    "sum": "t = Add(x, zero) y = Relu(t)",
    "sum, on the left": "t = Add(zero, x) y = Relu(t)",
    "difference": "t = Sub(x, zero) y = Relu(t)",
    "product": "t = Mul(x, one) y = Relu(t)",
    "product, on the left": "t = Mul(ones, x) y = Relu(t)",
    "quotient": "t = Div(x, one) y = Relu(t)",
    "fixed axes": "t = Add(x, zeros) y = Relu(t)",
    "zeros of either sign": "t = Add(x, signs) y = Relu(t)",
    "one element": "t = Add(x, single) y = Relu(t)",
    "names its output": "t = Relu(x) y = Add(t, zero)",
    "expanded to its own shape": "s = Shape(x) e = Expand(zero, s) t = Add(x, e) y = Relu(t)",
    "made of its own shape": "s = Shape(x) e = ConstantOfShape(s) t = Add(x, e) y = Relu(t)",
    "by way of others": "s = Shape(x) e = Expand(on, s) f = Not(e) c = Cast<to=1>(f) r = Transpose<perm=[0, 1, 2]>(c) "
    "t = Add(x, r) y = Relu(t)",
    "chosen": "s = Shape(x) e = Expand(on, s) w = Where(e, zero, low) t = Add(x, w) y = Relu(t)",
    "not chosen": "s = Shape(x) e = Expand(off, s) w = Where(e, low, zero) t = Add(x, w) y = Relu(t)",
    "batch of the input": "s = Shape<start=0, end=1>(x) c = Concat<axis=0>(s, three, a1) e = Expand(zero, c) "
    "t = Add(x, e) y = Relu(t)",
    "reshaped": "r = Reshape(x, flat) b = Reshape(r, back) s = Shape(x) e = Expand(zero, s) t = Add(b, e) y = Relu(t)",
}
RESHAPES = {"flat": np.array([-1, 12]), "back": np.array([-1, 3, 4])}


@pytest.mark.parametrize("name", GOES)
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_an_operand_that_changes_nothing_goes(name: str, batch: int) -> None:
    source = model(GOES[name], **RESHAPES)
    x = normal(batch, 3, 4)
    result, report = apply(RemoveNeutralOperands(), source, changed=1, x=x)
    assert report.skipped == {}
    assert run(result, x=x)[0].shape == (batch, 3, 4)
    cleaned, _ = RemoveDeadCode()(result)
    assert set(types(cleaned)) <= {"Relu", "Reshape"}


@pytest.mark.parametrize("name", GOES)
def test_nan_and_inf_pass_through(name: str) -> None:
    x = X.copy()
    x[0, 0], x[1, 2] = [np.nan, np.inf, -np.inf, -0.0], [np.inf, np.nan, 3e38, 1e-45]
    apply(RemoveNeutralOperands(), model(GOES[name], **RESHAPES), changed=1, x=x)


def test_only_the_sign_of_a_zero_may_change() -> None:
    x = np.full((1, 3, 4), -0.0, np.float32)
    for operand, body in (("zero", "Add(t, zero)"), ("-0.0", "Add(t, negative)"), ("zero", "Sub(t, zero)")):
        source = model(f"t = Identity(x) y = {body}")
        result, _ = apply(RemoveNeutralOperands(), source, changed=1, x=x)
        assert np.signbit(run(result, x=x)[0]).all()
        assert np.signbit(run(source, x=x)[0]).all() == (body != "Add(t, zero)"), operand


STAYS = {
    "another rank": ("t = Add(x, wide) y = ReduceSum<keepdims=0>(t, a0)", SHAPE),
    "an axis that may be 1": ("t = Add(z, zeros) y = Add(t, x)", SHAPE),
    "another batch": ("s = Shape(z) e = Expand(zero, s) y = Add(x, e)", SHAPE),
    "a batch that a reshape splits otherwise": ("r = Reshape(z, split) s = Shape(x) e = Expand(zero, s) "
        "t = Add(r, e) y = Relu(t)", SHAPE),
    "a vector of weights": ("y = Add(x, vector)", "a bias or scale of an untrained network"),
    "an operand that is an input": ("y = Add(x, z)", None),
    "not the same throughout": ("y = Add(x, almost)", None),
    "NaN": ("y = Add(x, nan)", None),
    "one in a sum": ("y = Add(x, one)", None),
    "zero in a product": ("y = Mul(x, zero)", None),
    "from zero": ("y = Sub(zero, x)", None),
    "reciprocal": ("y = Div(one, x)", None),
    "empty": ("e = Concat<axis=0>(empty, single) y = Add(x, e)", None),
    "mask from an input": ("e = Cast<to=9>(z) w = Where(e, zero, low) y = Add(x, w)", None),
    "mixed mask": ("w = Where(mixed, zero, low) y = Add(x, w)", None),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_an_operand_that_may_change_something_stays(name: str) -> None:
    body, reason = STAYS[name]
    more = {"a0": np.array([0]), "split": np.array([-1, 3, 2])}
    source = model(body, "float[n, 3, 4] x, float[m, k, j] z", "float[a, b, c] y", **more)
    _, report = apply(RemoveNeutralOperands(), source, changed=0)
    assert len(report.skipped) == (reason is not None)
    assert all(reason in text for text in report.skipped if reason)


def test_a_batch_of_one_is_broadcast_as_before() -> None:
    """What the refusal above is for: the two batches are equal only when they happen to be."""
    source = model(STAYS["another batch"][0], "float[n, 3, 4] x, float[m, 3, 4] z", "float[a, b, c] y")
    small, _ = optimize_model(source)
    assert run(small, x=X[:1], z=normal(5, 3, 4))[0].shape == (5, 3, 4)


def test_dims_with_the_names_of_unknown_ones_are_not_equal() -> None:
    for name, changed in (("n", 1), ("unk__0", 0), ("?", 0)):
        source = model("t = Relu(x) s = Shape(z) e = Expand(zero, s) y = Add(t, e)",
                       "float[n, 3, 4] x, float[n, 3, 4] z", "float[a, b, c] y")  # fmt: skip
        for value in source.graph.inputs:
            value.shape = ir.Shape([name, 3, 4])
        apply(RemoveNeutralOperands(), source, changed=changed, x=X, z=X)


@pytest.mark.parametrize("dtype", ["int64", "int32", "float16", "double"])
def test_other_types_keep_their_numbers(dtype: str) -> None:
    kind = {"float16": np.float16, "double": np.float64}.get(dtype, np.dtype(dtype).type)
    weights = {"none": np.zeros(3, kind)[:1], "same": kind(1)}
    text = (
        f"g ({dtype}[n, 3] x) => ({dtype}[n, 3] y) {{ a = Add(x, none) b = Mul(a, same) c = Div(b, same) y = Neg(c) }}"
    )
    x = (normal(2, 3) * 100).astype(kind)
    result, _ = apply(RemoveNeutralOperands(), build(text, weights=weights), changed=3, x=x)
    assert types(result) == ["Neg"]


def test_a_vector_of_integers_is_no_bias() -> None:
    text = "g (float[n, 3, 4] x) => (int64[3] y) { s = Shape(x) a = Add(s, none) y = Neg(a) }"
    result, _ = apply(RemoveNeutralOperands(), build(text, weights={"none": np.zeros(3, np.int64)}), changed=1, x=X)
    assert types(result) == ["Shape", "Neg"]


def test_outputs_keep_their_names() -> None:
    _, report = apply(RemoveNeutralOperands(), model("y = Add(x, zero)"), changed=0, x=X)
    assert report.skipped == {"it names an output that its operand cannot stand for": 1}
    twice = model("y = Relu(x) z = Add(y, zero)", result="float[n, 3, 4] y, float[n, 3, 4] z")
    apply(RemoveNeutralOperands(), twice, changed=0, x=X)


def test_a_weight_that_is_an_input_is_no_constant() -> None:
    source = build(
        "g (float[n, 4] x) => (float[n, 4] y) { y = Add(x, w) }", opset=8, ir_version=3, weights={"w": np.float32(0)}
    )
    assert RemoveNeutralOperands()(source)[1].changed == 0


def test_old_operators_are_left_alone() -> None:
    source = build("g (float[2, 4] x) => (float[2, 4] y) { t = Relu(x) y = Add<broadcast=1>(t, w) }", opset=6,
                   weights={"w": np.float32(0)})  # fmt: skip
    _, report = apply(RemoveNeutralOperands(), source, changed=0)
    assert report.skipped == {"operators of this opset broadcast in their own way": 1}


@pytest.mark.parametrize("condition", [True, False])
def test_inside_branches_what_is_computed_there_stands_for_the_result(condition: bool) -> None:
    source = model(
        """s = Shape(x) e = Expand(on, s)
        y = If (c) <then_branch = one () => (float[n, 3, 4] a) { r = Relu(x) w = Where(e, zero, low) a = Add(r, w) },
                    else_branch = two () => (float[n, 3, 4] b) { b = Mul(x, one) }>""",
        "bool c, float[n, 3, 4] x",
    )
    result, report = apply(RemoveNeutralOperands(), source, changed=1, c=np.array(condition), x=X)
    assert report.skipped == {"it names an output that its operand cannot stand for": 1}
    branch = next(node for node in result.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Relu", "Where"]


# Choices.


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("t = Where(yes, x, low) y = Relu(t)", ["Relu"]),
        ("t = Where(on, x, low) y = Relu(t)", ["Relu"]),
        ("t = Where(off, low, x) y = Relu(t)", ["Relu"]),
        ("u = Unsqueeze(on, a1) v = Squeeze(u, a1) t = Where(v, x, low) y = Relu(t)", ["Relu"]),
        ("r = Relu(x) y = Where(on, r, low)", ["Relu"]),
        ("s = Shape(x) e = Expand(on, s) t = Where(e, x, low) y = Relu(t)", ["Relu"]),
        ("t = Where(on, x, low) u = Where(off, low, t) y = Relu(u)", ["Relu"]),
        # Expanded to what the condition is.
        ("s = Shape(x) e = Expand(yes, s) y = Where(e, zero, low)", ["Shape", "Expand"]),
        ("s = Shape(x) e = ConstantOfShape(s) i = Cast<to=9>(e) y = Where(i, one, zeros)", None),
        ("s = Shape(x) e = ConstantOfShape<value = bool[1] {1}>(s) y = Where(e, ones, zero)", ["Shape", "Expand"]),
    ],
)  # fmt: skip
def test_the_branch_that_is_always_taken_stands_for_the_where(body: str, left: list[str] | None) -> None:
    source = model(body)
    changed = 0 if left is None else body.count("Where")
    for batch in (0, 1, 2):
        result, _ = apply(InlineConstantWhere(), source, changed=changed, x=normal(batch, 3, 4))
    if left is not None:
        assert types(RemoveDeadCode()(result)[0]) == left


def test_a_branch_is_expanded_to_fixed_sizes() -> None:
    source = model(
        "t = Where(on, zeros, low) u = Where(on, x, wide) y = Add(t, u)", "float[2, 3, 4] x", "float[a, b, c, d] y"
    )
    result, _ = apply(InlineConstantWhere(), source, changed=2, x=X)
    assert types(result) == ["Expand", "Add"]
    assert run(result, x=X)[0].shape == (5, 2, 3, 4)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Where(mixed, x, low)", None),
        ("c = Cast<to=9>(x) y = Where(c, x, low)", None),
        ("y = Where(on, x, z)", "the result may have another shape"),
        ("y = Where(on, z, x)", "the result may have another shape"),
        # Its three rows may be the condition's own: the shape it is expanded to does not say so.
        ("s = Shape(z) e = Expand(on, s) y = Where(e, zero, low)", "the result may have another shape"),
        ("y = Where(on, x, zero)", "it names an output"),
    ],
)
def test_a_where_that_decides_something_stays(body: str, reason: str | None) -> None:
    source = model(body, "float[n, 3, 4] x, float[m, k, j] z", "float[a, b, c] y")
    _, report = apply(InlineConstantWhere(), source, changed=0)
    assert len(report.skipped) == (reason is not None)
    assert all(text.startswith(reason) for text in report.skipped if reason)


# A whole attention, as transformers exports one whose mask hides nothing.

ATTENTION = """
    h = LayerNormalization<axis=-1>(x, g, beta) q0 = MatMul(h, w) k0 = MatMul(h, w) v0 = MatMul(h, w)
    q1 = Reshape(q0, heads) k1 = Reshape(k0, heads) v1 = Reshape(v0, heads)
    q = Transpose<perm=[0, 2, 1, 3]>(q1) k = Transpose<perm=[0, 2, 3, 1]>(k1) v = Transpose<perm=[0, 2, 1, 3]>(v1)
    raw = MatMul(q, k) scores = Mul(raw, half)
    s = Shape<start=0, end=1>({shape}) size = Concat<axis=0>(s, a1, five, five) e = Expand(ge, size)
    mask = Where(e, zero, low) masked = Add(scores, mask) p = Softmax<axis=-1>(masked) n = IsNaN(p)
    r = Where(n, zero, p) o = MatMul(r, v) t = Transpose<perm=[0, 2, 1, 3]>(o) y = Reshape(t, joined)
"""
SIZES = {
    "g": np.ones(8, np.float32), "beta": normal(8), "w": normal(8, 8), "heads": np.array([-1, 5, 2, 4]),
    "joined": np.array([-1, 5, 8]), "half": np.float32(0.5), "five": np.array([5]), "ge": np.ones((1, 1, 5, 1), bool),
}  # fmt: skip


@pytest.mark.parametrize("low", [-np.inf, np.finfo(np.float32).min])
def test_the_mask_of_an_attention_that_hides_nothing_goes_and_the_guard_behind_it(low: float) -> None:
    source = model(ATTENTION.format(shape="x"), "float[batch, 5, 8] x", low=np.float32(low), **SIZES)
    small, reports = optimize_model(source)
    assert not {"Where", "IsNaN", "Expand", "Add", "Shape"} & set(types(small))
    assert {item.name: item.changed for item in reports}["RemoveNeutralOperands"] == 1
    for batch in (1, 3):
        x = normal(batch, 5, 8)
        np.testing.assert_allclose(run(small, x=x)[0], run(source, x=x)[0], rtol=1e-5, atol=1e-6)


def test_a_mask_with_the_batch_of_another_input_stays() -> None:
    head = "float[batch, 5, 8] x, float[others] z"
    source = model(ATTENTION.format(shape="z"), head, "float[a, 5, 8] y", **SIZES)
    small, _ = optimize_model(source)
    check(small)
    assert "Add" in types(small)
    assert run(small, x=normal(1, 5, 8), z=normal(3))[0].shape == (3, 5, 8)


# The two analyses.


def test_values_that_hold_one_number() -> None:
    body = "e = Expand(yes, s) n = Not(e) c = Cast<to=11>(n) h = Cast<to=1>(low) i = Identity(low) y = Add(x, i)"
    source = model(body, s=np.array([2, 2]))
    named = {output.name: output for node in source.graph for output in node.outputs}
    uniform = Uniform()
    assert {name: uniform.of(value) for name, value in named.items()} == {
        "e": 1, "n": 0, "c": 0, "h": None, "i": -np.inf, "y": None,
    }  # fmt: skip


def test_sizes_that_a_reshape_or_a_broadcast_hides() -> None:
    body = """
        a = Reshape(x, flat) b = Reshape(a, back) c = Add(b, x) d = Mul(c, b) t = Transpose<perm=[0, 2, 1]>(d)
        m = MatMul(t, x) odd = Reshape(x, split) both = Add(odd, single) w = Reshape(z, rows) k = Reshape(z, merged)
        y = Relu(d)
    """
    more = {"split": np.array([-1, 2, 2]), "rows": np.array([0, -1, 2, 2]), "merged": np.array([-1, 4])}
    source = model(body, "float[n, 3, 4] x, float[n, q, 4] z", **RESHAPES, **more)
    sizes = EqualSizes(source)
    named = {output.name: sizes.of(output) for node in source.graph for output in node.outputs}
    assert [named[name] for name in ("a", "b", "d", "m")] == [("n", 12), ("n", 3, 4), ("n", 3, 4), ("n", 4, 4)]
    assert named["w"] == ("n", "q", 2, 2)
    unknown = [named["odd"], named["both"], named["k"]]
    assert not {"n", "q"} & {size for item in unknown if item for size in item}


@pytest.mark.parametrize("batch", [0, 2])
def test_an_engine_infers_nothing_beside_a_size_of_zero(batch: int) -> None:
    """The premise of what cancels; without a zero that cancels, 0 is inferred."""
    source = build("g (float[n, q, 4] z) => (float[a, b, c, d] y) { y = Reshape(z, rows) }",
                   weights={"rows": np.array([0, -1, 2, 2])})  # fmt: skip
    if batch:
        assert run(source, z=np.zeros((batch, 0, 4), np.float32))[0].shape == (batch, 0, 2, 2)
    else:
        with pytest.raises(Exception, match="(?i)reshape"):
            run(source, z=np.zeros((0, 3, 4), np.float32))
