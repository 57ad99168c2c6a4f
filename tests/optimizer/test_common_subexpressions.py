from __future__ import annotations

import numpy as np
import pytest

from tests.graph.building import build, normal, run, types
from tests.optimizer.applying import apply
from toolkit.optimizer.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions

X = normal(2, 3)


def test_equal_chains_are_merged_whole() -> None:
    model = build("g (float[2, 3] x) => (float[2, 3] y) { a = Exp(x) b = Exp(x) c = Neg(a) d = Neg(b) y = Add(c, d) }")
    result, report = apply(EliminateCommonSubexpressions(), model, changed=2, x=X)
    assert types(result) == ["Exp", "Neg", "Add"]
    assert report.details == ("Exp b is a", "Neg d is c")


@pytest.mark.parametrize(
    "body",
    [
        "a = Exp(x) b = Neg(x) y = Add(a, b)",
        "a = Sub(x, w) b = Sub(w, x) y = Add(a, b)",
        "a = Softmax<axis=0>(x) b = Softmax<axis=1>(x) y = Add(a, b)",
        "a = LeakyRelu<alpha=0.1>(x) b = LeakyRelu<alpha=0.2>(x) y = Add(a, b)",
        "a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b)",
        "a = Bernoulli(h) b = Bernoulli(h) y = Sub(a, b)",
        "a = Dropout(x, r, on) b = Dropout(x, r, on) y = Sub(a, b)",
        "a = com.x.Odd(x) b = com.x.Odd(x) y = Sub(a, b)",
        "p = QuantizeLinear(x, s) q = QuantizeLinear(x, s) a = DequantizeLinear(p, s) b = DequantizeLinear(p, s) "
        "c = DequantizeLinear(q, s) d = Add(a, b) y = Add(c, d)",
        "a, i = TopK(x, k) b, j = TopK<largest=0>(x, k) y = Sub(a, b)",
    ],
)
def test_nodes_that_differ_or_draw_numbers_or_quantize_stay(body: str) -> None:
    weights = {
        "w": X + 1, "h": np.full((2, 3), 0.5, np.float32), "r": np.float32(0.5), "on": np.bool_(True),
        "s": np.float32(0.1), "k": np.array([2]),
    }  # fmt: skip
    model = build(f"g (float[2, 3] x) => (float[a, e] y) {{ {body} }}", weights=weights, imports=', "com.x" : 1')
    apply(EliminateCommonSubexpressions(), model, changed=0)


def test_why_a_random_node_stays_is_said() -> None:
    model = build(
        "g (float[2, 3] x) => (float[2, 3] y) { a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }"
    )
    assert apply(EliminateCommonSubexpressions(), model, changed=0)[1].skipped == {"it draws random numbers": 2}


def test_an_output_keeps_its_name() -> None:
    model = build("g (float[2, 3] x) => (float[2, 3] y) { a = Exp(x) b = Neg(a) y = Exp(x) }")
    result, _ = apply(EliminateCommonSubexpressions(), model, changed=1, x=X)
    assert result.graph.outputs[0].name == "y"
    twice = build("g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) { y = Exp(x) z = Exp(x) }")
    _, report = apply(EliminateCommonSubexpressions(), twice, changed=0, x=X)
    assert report.skipped == {"both results are outputs": 1}


BRANCHES = """g (bool c, float[2, 3] x) => (float[2, 3] y) {{
    o = Exp(x)
    p = If (c) <then_branch = one () => (float[2, 3] a) {{ t = Exp(x) a = Neg(t) }},
                else_branch = two () => (float[2, 3] b) {{ b = Relu(x) }}>
    q = If (c) <then_branch = three () => (float[2, 3] d) {{ u = Exp(x) d = {operator}(u) }},
                else_branch = four () => (float[2, 3] e) {{ e = Relu(x) }}>
    r = Add(p, q) y = Add(r, o)
}}"""


def test_a_branch_reuses_what_was_computed_outside_and_equal_ifs_are_one() -> None:
    equal = build(BRANCHES.format(operator="Neg"))
    result, _ = apply(EliminateCommonSubexpressions(), equal, changed=3, c=np.array(True), x=X)
    assert types(result) == ["Exp", "If", "Add", "Add"]
    different = build(BRANCHES.format(operator="Abs"))
    result, _ = apply(EliminateCommonSubexpressions(), different, changed=2, c=np.array(False), x=X)
    assert types(result) == ["Exp", "If", "If", "Add", "Add"]


def test_what_one_branch_computes_is_not_there_in_the_other() -> None:
    model = build(
        """g (bool c, float[2, 3] x) => (float[2, 3] y) {
            p = If (c) <then_branch = one () => (float[2, 3] a) { t = Exp(x) a = Neg(t) },
                        else_branch = two () => (float[2, 3] b) { s = Exp(x) b = Abs(s) }>
            k = Exp(x) y = Add(p, k)
        }"""
    )
    result, _ = apply(EliminateCommonSubexpressions(), model, changed=0, c=np.array(False), x=X)
    np.testing.assert_allclose(run(result, c=np.array(False), x=X)[0], 2 * np.exp(X), rtol=1e-6)


def test_ifs_with_other_weights_inside_are_not_equal() -> None:
    model = build(
        """g (bool c, float[2, 3] x) => (float[2, 3] y) {
            p = If (c) <then_branch = one () => (float[2, 3] a) <float[3] w = {1, 2, 3}> { a = Add(x, w) },
                        else_branch = two () => (float[2, 3] b) { b = Relu(x) }>
            q = If (c) <then_branch = three () => (float[2, 3] d) <float[3] v = {1, 2, 4}> { d = Add(x, v) },
                        else_branch = four () => (float[2, 3] e) { e = Relu(x) }>
            y = Add(p, q)
        }"""
    )
    apply(EliminateCommonSubexpressions(), model, changed=0, c=np.array(True), x=X)
