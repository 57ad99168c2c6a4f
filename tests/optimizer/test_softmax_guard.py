"""The guard behind Softmax goes where a NaN is impossible, and stays where a row may be fully masked."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.building import build, normal, reference, run, types
from tests.optimizer.applying import apply
from toolkit.optimizer.passes.simplify_softmax_guard import SimplifySoftmaxGuard

LOWEST = np.finfo(np.float32).min
INF = np.float32(np.inf)
SIZE, TOKENS = 8, 4
HEAD = "(float[b, t, 8] x, bool[b, 1, t] m)"
# Self-attention whose scores a LayerNormalization bounds; {mask} ends with the value that goes into Softmax, called s.
BODY = """
    h = LayerNormalization<axis=-1>(x, g, beta) q = MatMul(h, wq) k = MatMul(h, wk)
    kt = Transpose<perm=[0, 2, 1]>(k) scores = MatMul(q, kt)
    {mask} p = Softmax<axis=-1>(s) {guard} y = MatMul(r, h)
"""
GUARD = "n = IsNaN(p) r = Where(n, zero, p)"
WEIGHTS: dict[str, Any] = {
    "g": np.ones(SIZE, np.float32), "beta": normal(SIZE, seed=1), "wq": normal(SIZE, SIZE, seed=2),
    "wk": normal(SIZE, SIZE, seed=3), "zero": np.float32(0), "lowest": LOWEST, "minus": -INF,
    "causal": np.where(np.tri(TOKENS, dtype=bool), np.float32(0), -INF),
    "blank": np.where(np.eye(TOKENS, k=1, dtype=bool), np.float32(0), -INF),
    "keep": np.tri(TOKENS, dtype=bool), "hide": ~np.tri(TOKENS, dtype=bool),
    "nan": np.full((TOKENS, TOKENS), np.nan, np.float32), "i0": np.int64(0), "i1": np.int64(1),
    "a0": np.array([0]), "a1": np.array([1]), "last": np.array([-1]), "table": np.tri(16, dtype=bool),
    "from0": np.array([0, 0]), "from1": np.array([0, 1]), "axes": np.array([0, 1]),
}  # fmt: skip
X = normal(3, TOKENS, SIZE, seed=7)
# Nothing masked, one row of the batch entirely, some.
MASK = np.array([[[1, 1, 1, 1]], [[0, 0, 0, 0]], [[1, 0, 1, 0]]], bool)


def model(mask: str, guard: str = GUARD, **weights: Any) -> ir.Model:
    body = BODY.format(mask=mask, guard=guard)
    return build(f"g {HEAD} => (float[b, t, 8] y) {{ {body} }}", weights={**WEIGHTS, **weights}, opset=20)


STEPS = "sh = Shape(x) tt = Gather(sh, i1) i = Range(i0, tt, i1) rows = Unsqueeze(i, last) cols = Unsqueeze(i, a0)"
PROVEN = {
    "no mask": "s = Identity(scores)",
    "finite, from an input": "d = Where(m, zero, lowest) s = Add(scores, d)",
    "finite, on the left": "d = Where(m, zero, lowest) s = Add(d, scores)",
    "times the minimum": "v = Not(m) f = Cast<to=1>(v) d = Mul(f, lowest) s = Add(scores, d)",
    "constant causal": "s = Add(scores, causal)",
    "condition keeps": "d = Where(keep, zero, minus) s = Add(scores, d)",
    "condition hides": "d = Where(hide, minus, zero) s = Add(d, scores)",
    "negated condition": "v = Not(hide) d = Where(v, zero, minus) s = Add(scores, d)",
    "compared steps": f"{STEPS} c = LessOrEqual(cols, rows) d = Where(c, zero, minus) s = Add(scores, d)",
    "compared steps, hiding": f"{STEPS} c = Greater(cols, rows) d = Where(c, minus, zero) s = Add(scores, d)",
    "cut from a table": "sh = Shape<start=1, end=2>(x) e = Concat<axis=0>(sh, sh) c = Slice(table, from0, e, axes) "
    "d = Where(c, zero, minus) s = Add(scores, d)",
}


@pytest.mark.parametrize("name", PROVEN)
def test_the_guard_goes_where_no_row_can_be_nan(name: str) -> None:
    result, report = apply(SimplifySoftmaxGuard(), model(PROVEN[name]), changed=1, x=X, m=MASK)
    assert not {"IsNaN"} & set(types(result))
    assert report.details == ("behind p",)
    assert report.skipped == {}
    assert np.isfinite(run(result, x=X, m=MASK)[0]).all()


@pytest.mark.parametrize("size", [1e-3, 1e4, 1e18])
def test_a_fully_masked_row_is_the_same_however_large_the_input(size: float) -> None:
    result, _ = apply(SimplifySoftmaxGuard(), model(PROVEN["finite, from an input"]), changed=1)
    source, x = model(PROVEN["finite, from an input"]), X * np.float32(size)
    for runs in (run, reference):
        np.testing.assert_array_equal(runs(result, x=x, m=MASK)[0], runs(source, x=x, m=MASK)[0])


STAYS = {
    "-inf from an input": ("d = Where(m, zero, minus) s = Add(scores, d)", "the mask may leave nothing in a row"),
    "-inf from an input, inside": ("f = Cast<to=1>(m) l = Log(f) s = Add(scores, l)", "the mask may leave nothing"),
    "a constant row fully masked": ("s = Add(scores, blank)", "the mask may leave nothing in a row"),
    "NaN": ("s = Add(scores, nan)", "the mask may leave nothing in a row"),
    "branches the other way": ("d = Where(keep, minus, zero) s = Add(scores, d)", "the mask may leave nothing"),
    "nothing before itself": (
        f"{STEPS} c = Less(cols, rows) d = Where(c, zero, minus) s = Add(scores, d)", "the mask may leave nothing",
    ),
    "a table cut behind its start": (
        "sh = Shape<start=1, end=2>(x) o = Add(sh, a1) e = Concat<axis=0>(sh, o) c = Slice(table, from1, e, axes) "
        "d = Where(c, zero, minus) s = Add(scores, d)", "the mask may leave nothing",
    ),
    "twice the minimum": (
        "d = Where(m, zero, lowest) t = Add(scores, d) s = Add(t, d)", "adding the mask may overflow",
    ),
    "no bound": ("u = MatMul(x, wk) w = MatMul(u, kt) s = Add(w, causal)", "the scores have no finite bound"),
    "no bound, no mask": ("u = MatMul(x, wk) s = MatMul(u, kt)", "the scores have no finite bound"),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_the_guard_stays_and_says_why(name: str) -> None:
    mask, reason = STAYS[name]
    source = model(mask)
    result, report = apply(SimplifySoftmaxGuard(), source, changed=0, x=X, m=MASK)
    assert list(report.skipped.values()) == [1]
    assert next(iter(report.skipped)).startswith(reason)
    assert "IsNaN" in types(result)


@pytest.mark.parametrize("name", ["-inf from an input", "a constant row fully masked"])
def test_rows_that_the_guard_makes_zero_would_be_nan_without_it(name: str) -> None:
    guarded, bare = model(STAYS[name][0]), model(STAYS[name][0], "r = Identity(p)")
    kept, _ = SimplifySoftmaxGuard()(guarded.clone())
    empty = (1, slice(None)) if "input" in name else (slice(None), TOKENS - 1)
    assert not run(kept, x=X, m=MASK)[0][empty].any()
    assert np.isnan(run(bare, x=X, m=MASK)[0][empty]).all()


def test_a_mask_along_another_axis_than_the_softmax_proves_nothing() -> None:
    source = model(PROVEN["constant causal"])
    next(node for node in source.graph if node.op_type == "Softmax").attributes["axis"] = ir.AttrInt64("axis", 1)
    _, report = apply(SimplifySoftmaxGuard(), source, changed=0, x=X, m=MASK)
    assert report.skipped == {"the mask may leave nothing in a row": 1}


@pytest.mark.parametrize(
    "guard",
    [
        "n = IsNaN(p) o = Not(n) r = Where(o, p, zero)",
        "n = IsNaN(p) r = Where(n, ones, p)",
    ],
)
def test_either_order_and_any_single_number(guard: str) -> None:
    source = model(PROVEN["no mask"], guard, ones=np.ones(1, np.float32))
    result, _ = apply(SimplifySoftmaxGuard(), source, changed=1, x=X, m=MASK)
    assert not {"IsNaN", "Not", "Where"} & set(types(result))


@pytest.mark.parametrize(
    "guard",
    [
        "n = IsNaN(s) r = Where(n, zero, p)",  # tests something else
        "n = IsNaN(p) r = Where(n, p, zero)",  # keeps the NaN
        "n = IsNaN(p) o = Not(n) r = Where(o, zero, p)",
        "n = IsNaN(p) r = Where(n, wide, p)",  # of more axes the result could have more
        "n = IsInf(p) r = Where(n, zero, p)",
    ],
)
def test_what_is_no_guard_is_left_alone(guard: str) -> None:
    wide = np.zeros((1, 1, 1), np.float32)
    _, report = apply(SimplifySoftmaxGuard(), model(PROVEN["no mask"], guard, wide=wide), changed=0)
    assert report.skipped == {}


def test_a_guarded_softmax_that_is_an_output_itself_stays() -> None:
    text = """g (int64[2, 3] x) => (float[2, 3] p, float[2, 3] r) {
        s = Cast<to=1>(x) p = Softmax(s) n = IsNaN(p) r = Where(n, z, p) }"""
    weights = {"z": np.float32(0)}
    _, report = apply(SimplifySoftmaxGuard(), build(text, weights=weights), changed=0)
    assert sum(report.skipped.values()) == 1


def half(lowest: float, width: float) -> ir.Model:
    """Scores are constants times a constant, at most ``width``; the mask adds ``lowest``."""
    text = """g (int64[t] ids, bool[t] m) => (float16[t, 4] y) {
        q = Gather(table, ids) scores = MatMul(q, keys) d = Where(m, zero, lowest)
        s = Add(scores, d) p = Softmax<axis=-1>(s) n = IsNaN(p) y = Where(n, zero, p) }"""
    table = np.full((5, 2), width / 2 / 1.02, np.float16)
    weights = {
        "table": table, "keys": -np.ones((2, 4), np.float16), "zero": np.float16(0), "lowest": np.float16(lowest),
    }  # fmt: skip
    return build(text, weights=weights, opset=20)


@pytest.mark.parametrize(
    ("lowest", "width", "changed"),
    [(-65504, 7, 1), (-65504, 17, 0), (-65504, 200, 0), (-1e4, 200, 1), (-1e4, 60000, 0)],
)
def test_float16_overflows_early(lowest: float, width: float, changed: int) -> None:
    feeds = {"ids": np.arange(4), "m": np.zeros(4, bool)}
    result, report = apply(SimplifySoftmaxGuard(), half(lowest, width), changed=changed, **feeds)
    assert report.skipped == ({} if changed else {"adding the mask may overflow to -inf": 1})
    assert np.isfinite(run(result, **feeds)[0]).all()


def test_in_float16_a_score_of_minus_17_does_make_a_row_nan() -> None:
    """What the refusal above is for; by the reference, since ONNX Runtime's CPU kernels compute this in float32."""
    rows = reference(half(-65504, 17.5), ids=np.arange(4), m=np.zeros(4, bool))[0]
    assert not rows.any()
