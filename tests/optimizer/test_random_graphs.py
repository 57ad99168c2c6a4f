"""Random graphs of what the passes look for: whatever they do, the numbers stay, and a second run finds nothing."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.building import check, normal, proto, reference, run
from toolkit.optimizer.api import optimize_model

# Each takes names of float values of shape (n, 4) and gives a line that defines {o}, another such value. A cast to half
# precision is among them: a last bit that tips it over is why the tolerance below is that of half precision.
UNARY = (
    "{o} = Identity({a})", "{o} = Relu({a})", "{o} = Neg({a})", "{o} = Dropout({a})", "{o} = Cast<to=1>({a})",
    "{o}_d = Cast<to=11>({a}) {o} = Cast<to=1>({o}_d)", "{o}_h = Cast<to=10>({a}) {o} = Cast<to=1>({o}_h)",
    "{o} = Transpose<perm=[0, 1]>({a})", "{o} = Gemm({a}, w44, w4)", "{o} = BatchNormalization({a}, g, w4, w4, g)",
    "{o}_s = Shape({a}) {o} = Reshape({a}, {o}_s)", "{o}_u = Unsqueeze({a}, two) {o}_b = BatchNormalization({o}_u, g, "
    "w4, w4, g) {o} = Squeeze({o}_b, two)", "{o}_k = Constant<value_float=0.5>() {o} = Mul({a}, {o}_k)",
    "{o}_e = Abs(w4) {o} = Add({a}, {o}_e)", "{o}_n = Shape({a}) {o}_z = Gather({o}_n, one) {o}_f = Cast<to=1>({o}_z) "
    "{o} = Add({a}, {o}_f)", "{o} = Pad({a}, pads)", "{o} = Concat<axis=1>({a})",
    "{o}_l, {o} = Split<axis=0>({a}, minus)", "{o} = Sub({a}, zero)", "{o}_n = Shape({a}) {o}_m = Expand(row, {o}_n) "
    "{o} = Where({o}_m, {a}, w4)", "{o}_n = Shape(x) {o}_m = Expand(yes, {o}_n) {o}_w = Where({o}_m, zero, low) "
    "{o} = Add({a}, {o}_w)", "{o}_r = Reshape({a}, flat) {o} = Mul({o}_r, unit)",
)  # fmt: skip
BINARY = ("{o} = Add({a}, {b})", "{o} = Sub({a}, {b})", "{o} = Mul({a}, copy4)", "{o} = Max({a}, {b})")
BRANCH = (
    "{o} = If ({c}) <then_branch = {o}_t () => (float[n, 4] {o}_p) {{ {then} }}, "
    "else_branch = {o}_f () => (float[n, 4] {o}_r) {{ {other} }}>"
)
WEIGHTS = {
    "w44": normal(4, 4) / 2, "w4": normal(4), "copy4": normal(4), "g": np.abs(normal(4)) + 0.5, "two": np.array([2]),
    "one": np.int64(1), "pads": np.zeros(4, np.int64), "yes": np.array(True),
    "no": np.array(False), "minus": np.array([0, 3]), "zero": np.float32(0), "low": np.float32(-np.inf),
    "row": np.ones(4, bool), "flat": np.array([-1, 4]), "unit": np.ones((1, 4), np.float32),
}  # fmt: skip


def lines(random_: random.Random, known: list[str], prefix: str, count: int, depth: int) -> list[str]:
    """``count`` definitions; ``known`` grows by their names."""
    made: list[str] = []
    for index in range(count):
        name = f"{prefix}{index}"
        a, b = random_.choice(known), random_.choice(known)
        kind = random_.random()
        if kind < 0.12 and depth:
            inner = [lines(random_, list(known), f"{name}{side}", 3, depth - 1) for side in "tf"]
            then = f"{' '.join(inner[0])} {name}_p = Relu({name}t2)"
            other = f"{' '.join(inner[1])} {name}_r = Identity({random_.choice([name + 'f2', a])})"
            made.append(BRANCH.format(o=name, c=random_.choice(["c", "yes", "no"]), then=then, other=other))
        else:
            pool = BINARY if kind < 0.35 else UNARY
            made.append(random_.choice(pool).format(o=name, a=a, b=b))
        known.append(name)
    return made


def random_model(seed: int) -> onnx.ModelProto:
    random_ = random.Random(seed)
    known = ["x", "x2"]
    body = " ".join(lines(random_, known, "v", 14, 2))
    outputs = random_.sample(known[2:], 2)
    ends = " ".join(f"y{index} = {random_.choice(['Identity', 'Neg'])}({name})" for index, name in enumerate(outputs))
    head = "g (bool c, float[n, 4] x, float[n, 4] x2) => (float[a0, b0] y0, float[a1, b1] y1)"
    # From 14 on: before, onnx's reference implementation takes every batch norm for one in training.
    return proto(f"{head} {{ {body} {ends} }}", opset=random_.choice([14, 15, 17]), weights=WEIGHTS)


@pytest.mark.parametrize("seed", range(25))
def test_a_random_graph_keeps_its_numbers(seed: int) -> None:
    model = ir.serde.deserialize_model(random_model(seed))
    small, _ = optimize_model(model, opset=random.Random(seed).choice([None, 21]))
    check(small)
    assert len(list(small.graph)) <= len(list(model.graph))
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(3, 4, seed=seed), "x2": normal(3, 4, seed=seed + 1)}
        # ONNX Runtime runs the result only: in the original it misses values that only dead nodes in branches read.
        shapes = [array.shape for array in run(small, **feeds)]
        for wanted, got in zip(reference(model, **feeds), reference(small, **feeds), strict=True):
            assert wanted.shape == shapes.pop(0)
            np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3)
    again, reports = optimize_model(small)
    assert [(report.name, report.details) for report in reports if report.changed] == []
    assert ir.serde.serialize_model(again) == ir.serde.serialize_model(small)
