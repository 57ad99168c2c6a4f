from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graph.building import build, normal, types
from tests.optimizer.applying import apply
from toolkit.graph.facts import facts
from toolkit.optimizer.passes.fold_constants import FoldConstants

X = normal(2, 3)


def test_a_chain_of_constants_is_folded_at_once() -> None:
    model = build(
        "g (float[2, 3] x) => (float[2, 3] y) { a = Exp(w) b = Transpose(a) c = Add(b, b) y = Add(x, c) }",
        weights={"w": normal(3, 2)},
    )
    result, _ = apply(FoldConstants(), model, changed=3, tolerance=1e-6, x=X)
    assert types(result) == ["Add"]


def test_constants_inside_a_branch_are_folded_there() -> None:
    model = build(
        """g (bool c, float[2, 3] x) => (float[2, 3] y) {
            y = If (c) <then_branch = one () => (float[2, 3] a) { t = Neg(w) a = Add(x, t) },
                        else_branch = two () => (float[2, 3] b) { t = Exp(w) b = Add(x, t) }>
        }""",
        weights={"w": normal(3)},
    )
    result, _ = apply(FoldConstants(), model, changed=2, tolerance=1e-6, c=np.array(False), x=X)
    assert [list(graph.initializers) for graph in result.graphs()] == [["w"], ["t"], ["t"]]


def test_fixed_dims_are_constants_and_dynamic_ones_are_not() -> None:
    text = """g (float[batch, 3, 4] x) => (float[a, b] y) {
        s = Shape(x) n = Gather(s, zero) m = Gather(s, one) k = Gather(s, two) mk = Mul(m, k)
        n1 = Unsqueeze(n, axis) m1 = Unsqueeze(mk, axis) shape = Concat<axis=0>(n1, m1) y = Reshape(x, shape)
    }"""
    weights = {"zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "axis": np.zeros(1, np.int64)}
    for size in (1, 5):
        result, _ = apply(FoldConstants(), build(text, weights=weights), changed=4, x=normal(size, 3, 4))
    assert types(result) == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]
    fixed = build(text.replace("batch", "5"), weights=weights)
    assert types(apply(FoldConstants(), fixed, changed=8, x=normal(5, 3, 4))[0]) == ["Reshape"]


@pytest.mark.parametrize(
    ("body", "folded"),
    [
        ("y = Shape<start=1>(x)", 0),  # an output
        ("s = Shape<start=1>(x) y = Identity(s)", 1),
        ("s = Shape<start=-2, end=-1>(x) y = Identity(s)", 1),
        ("s = Shape<end=2>(x) y = Identity(s)", 0),  # the first of these is dynamic
        ("s = Shape(x) t = Slice(s, one, far) y = Identity(t)", 1),
        ("s = Shape(x) t = Slice(s, zero, far) y = Identity(t)", 0),
        ("s = Shape(x) t = Gather(s, last) y = Identity(t)", 1),
        ("s = Size(x) t = Unsqueeze(s, zero) y = Identity(t)", 0),
    ],
)
def test_which_sizes_are_known(body: str, folded: int) -> None:
    weights = {
        "zero": np.array([0]), "one": np.array([1]), "far": np.array([2**63 - 1]), "last": np.array([-1])
    }  # fmt: skip
    model = build(f"g (float[batch, 3, 4] x) => (int64[k] y) {{ {body} }}", weights=weights)
    apply(FoldConstants(), model, changed=folded, x=normal(5, 3, 4))


def test_a_wrong_annotation_freezes_nothing() -> None:
    text = "g (float[batch, 4] x) => (int64[a] y) <float[1, 4] t> { t = Relu(x) s = Shape(t) y = Identity(s) }"
    apply(FoldConstants(), build(text), changed=0, x=normal(3, 4))


def test_what_a_loop_carries_has_no_fixed_size() -> None:
    model = build(
        """g (int64 m, bool c, float[1] x) => (float[n] y) {
            y = Loop (m, c, x) <body = b (int64 i, bool k, float[1] s) => (bool o, float[j] t) {
                o = Identity(k) size = Shape(s) one = Cast<to=1>(size) t = Concat<axis=0>(s, one) }>
        }"""
    )
    apply(FoldConstants(), model, changed=0, m=np.array(3), c=np.array(True), x=normal(1))


def test_results_that_would_blow_up_the_file_are_left_to_the_engine() -> None:
    model = build(
        "g (float[n] x) => (float[a, b] y) { big = Expand(w, shape) y = Add(x, big) }",
        weights={"w": normal(1), "shape": np.array([500, 100])},
    )
    _, report = apply(FoldConstants(), model, changed=0, x=normal(100))
    assert report.skipped == {"the result is larger by over 16384 bytes": 1}
    apply(FoldConstants(growth_bytes=500 * 100 * 4), model, changed=1, x=normal(100))


def test_a_weight_that_is_freed_makes_room_for_its_result() -> None:
    model = build(
        "g (float[n, 100] x) => (float[n, 100] y) { t = Transpose(w) y = MatMul(x, t) }",
        weights={"w": normal(100, 100)},
    )
    apply(FoldConstants(growth_bytes=0), model, changed=1, tolerance=1e-5, x=normal(2, 100))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("r = RandomNormalLike(w) y = Add(x, r)", "quantization, random numbers or control flow"),
        (
            "q = QuantizeLinear(w, s) d = DequantizeLinear(q, s) y = Add(x, d)",
            "quantization, random numbers or control flow",
        ),
        ("d = DequantizeLinear(i, s) y = Add(x, d)", "quantization, random numbers or control flow"),
        ("d = Cast<to=1>(h) y = Add(x, d)", "it widens weights that are stored narrow"),
    ],
)
def test_what_is_constant_and_stays(body: str, reason: str) -> None:
    weights: dict[str, Any] = {
        "w": X, "s": np.float32(0.1), "i": np.ones((2, 3), np.int8), "h": X.astype(np.float16)
    }  # fmt: skip
    model = build(f"g (float[2, 3] x) => (float[2, 3] y) {{ {body} }}", weights=weights)
    _, report = apply(FoldConstants(), model, changed=0)
    assert reason in report.skipped


def test_weights_that_can_be_overridden_are_no_constants() -> None:
    model = build(
        "g (float[3] x) => (float[3] y) { t = Neg(w) y = Add(x, t) }", opset=8, ir_version=3, weights={"w": normal(3)}
    )
    assert len(facts(model).inputs) == 1
    result, report = FoldConstants()(model.clone())
    assert report.changed == 0
    assert types(result) == ["Neg", "Add"]
