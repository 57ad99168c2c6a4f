from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graph.building import build, normal, run, types
from tests.optimizer.applying import apply
from toolkit.optimizer.passes.fold_batch_norm import FoldBatchNorm
from toolkit.optimizer.passes.unwrap_batch_norm import UnwrapBatchNorm


def norm(channels: int, dtype: Any = np.float32) -> dict[str, Any]:
    """Scale, bias, mean and variance of a batch norm."""
    draws = {name: normal(channels, seed=seed, dtype=dtype) for seed, name in enumerate("gbmv", start=10)}
    return {**draws, "v": np.abs(draws["v"]) + dtype(0.1)}


NORM = "BatchNormalization<epsilon=0.01>"
IMAGE, ROW = "(float[n, 6, 9, 9] x) => (float[a, k, c, d] y)", "(float[n, 6] x) => (float[n, 5] y)"
# name: signature, the node before the norm, its weights, channels of the norm.
BEFORE: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "Conv": (IMAGE, "Conv<pads=[1, 1, 1, 1]>(x, w)", {"w": normal(8, 6, 3, 3)}, 8),
    "Conv, bias, groups": (IMAGE, "Conv<group=2>(x, w, k)", {"w": normal(4, 3, 3, 3), "k": normal(4)}, 4),
    "Conv, one dimension": ("(float[n, 6, 9] x) => (float[a, k, c] y)", "Conv(x, w)", {"w": normal(8, 6, 3)}, 8),
    "ConvTranspose, groups": (
        IMAGE, "ConvTranspose<group=2, strides=[2, 2]>(x, w, k)", {"w": normal(6, 4, 3, 3), "k": normal(8)}, 8
    ),
    "Gemm": (ROW, "Gemm(x, w, k)", {"w": normal(6, 5), "k": normal(5)}, 5),
    "Gemm, factors": (
        ROW, "Gemm<transB=1, alpha=0.5, beta=3.0>(x, w, k)", {"w": normal(5, 6), "k": normal(1, 5)}, 5
    ),
    "Gemm, one bias for all": (ROW, "Gemm<beta=2.0>(x, w, k)", {"w": normal(6, 5), "k": np.float32(0.7)}, 5),
}  # fmt: skip
# name: signature, the node behind the norm, its weights, channels of the norm.
BEHIND: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "Conv": (IMAGE, "Conv(t, w)", {"w": normal(8, 6, 3, 3)}, 6),
    "Conv, bias, groups": (
        IMAGE, "Conv<group=2, strides=[2, 2]>(t, w, k)", {"w": normal(4, 3, 3, 3), "k": normal(4)}, 6
    ),
    "Gemm, factors": (ROW, "Gemm<transB=1, alpha=0.5, beta=3.0>(t, w, k)", {"w": normal(5, 6), "k": normal(5)}, 6),
    "Gemm": (ROW, "Gemm(t, w, k)", {"w": normal(6, 5), "k": normal(5)}, 6),
}  # fmt: skip
CASES = {
    **{
        name: (f"{head} {{ t = {node} y = {NORM}(t, g, b, m, v) }}", *rest)
        for name, (head, node, *rest) in BEFORE.items()
    },
    **{
        f"{name}, behind": (f"{head} {{ t = {NORM}(x, g, b, m, v) y = {node} }}", *rest)
        for name, (head, node, *rest) in BEHIND.items()
    },
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_folding_keeps_the_numbers(name: str, opset: int) -> None:
    text, weights, channels = CASES[name]
    model = build(f"g {text}", opset=opset, weights={**weights, **norm(channels)})
    shape = [dim if isinstance(dim, int) else 2 for dim in model.graph.inputs[0].shape]
    result, _ = apply(FoldBatchNorm(), model, changed=1, tolerance=1e-4, x=normal(*shape))
    assert "BatchNormalization" not in types(result)


@pytest.mark.parametrize(
    ("body", "extra", "reason"),
    [
        ("t = Relu(x) y = BatchNormalization(t, g, b, m, v)", {}, "no Conv, ConvTranspose or Gemm before it"),
        (
            "t = Conv(x, w) y = BatchNormalization(t, g, b, m, v) z = Relu(t)",
            {},
            "no Conv, ConvTranspose or Gemm before it",
        ),
        ("u = Neg(w) t = Conv(x, u) y = BatchNormalization(t, g, b, m, v)", {}, "weights of the Conv are not constant"),
        ("t = Conv(x, w) y = BatchNormalization(t, g, b, m, v) z = Conv(x, w)", {}, "used elsewhere"),
        ("r = Abs(v) t = Conv(x, w) y = BatchNormalization(t, g, b, m, r)", {}, "statistics are not constant"),
        ("t = BatchNormalization(x, g, b, m, v) y = Conv<pads=[1, 1, 1, 1]>(t, w)", {}, "pads"),
        ('t = BatchNormalization(x, g, b, m, v) y = Conv<auto_pad="SAME_UPPER">(t, w)', {}, "pads"),
        ("t = Conv(x, w) y, p, q = BatchNormalization<training_mode=1>(t, g, b, m, v)", {}, "training mode"),
        ("t = Conv(x, w) y = BatchNormalization<epsilon=0.0>(t, g, b, m, v)", {"v": np.zeros(4, np.float32)}, "finite"),
    ],
)
def test_what_cannot_be_folded_says_why(body: str, extra: dict[str, Any], reason: str) -> None:
    weights = {"w": normal(4, 4, 3, 3), **norm(4), **extra}
    model = build(f"g (float[1, 4, 6, 6] x) => (float[a, e, c, d] y) {{ {body} }}", weights=weights)
    _, report = apply(FoldBatchNorm(), model, changed=0)
    assert any(reason in found for found in report.skipped), report.skipped


def test_half_precision_is_left_alone() -> None:
    model = build(
        "g (float16[1, 4, 6, 6] x) => (float16[a, e, c, d] y) { t = Conv(x, w) y = BatchNormalization(t, g, b, m, v) }",
        weights={"w": normal(4, 4, 3, 3, dtype=np.float16), **norm(4, np.float16)},
    )
    assert apply(FoldBatchNorm(), model, changed=0)[1].skipped == {"half precision": 1}


def test_a_chain_of_two_is_folded_into_one() -> None:
    weights = {"w": normal(4, 4, 3, 3), **norm(4), "g2": normal(4, seed=20)}
    model = build(
        """g (float[1, 4, 6, 6] x) => (float[a, e, c, d] y) {
            t = Conv(x, w) u = BatchNormalization(t, g, b, m, v) y = BatchNormalization(u, g2, b, m, v)
        }""",
        weights=weights,
    )
    assert types(apply(FoldBatchNorm(), model, changed=2, tolerance=1e-4, x=normal(1, 4, 6, 6))[0]) == ["Conv"]


def test_a_norm_of_flat_features_is_unwrapped_then_folded() -> None:
    """What PyTorch wrote for Linear and BatchNorm1d at opset 6."""
    text = """g (float[n, 6] x) => (float[n, 5] y) {
        t = Gemm<transB=1>(x, w, k) u = Unsqueeze(t, two) z = BatchNormalization(u, g, b, m, v) y = Squeeze(z, two)
    }"""
    weights = {"w": normal(5, 6), "k": normal(5), "two": np.array([2]), **norm(5)}
    unwrapped, _ = apply(UnwrapBatchNorm(), build(text, weights=weights), changed=1, tolerance=1e-6, x=normal(3, 6))
    assert types(unwrapped) == ["Gemm", "BatchNormalization"]
    folded, _ = apply(FoldBatchNorm(), unwrapped, changed=1, tolerance=1e-4, x=normal(3, 6))
    assert types(folded) == ["Gemm"]


def test_axes_that_move_the_channels_are_not_unwrapped() -> None:
    model = build(
        """g (float[4, 6] x) => (float[a, b] y) {
            u = Unsqueeze(x, z) t = BatchNormalization(u, g, b, m, v) y = Squeeze(t, z)
        }""",
        weights={"z": np.array([0]), **norm(4)},
    )
    _, report = apply(UnwrapBatchNorm(), model, changed=0, x=normal(4, 6))
    assert "not the same ones behind the channels" in next(iter(report.skipped))


def test_the_arithmetic_is_done_in_float64() -> None:
    """Large means that nearly cancel: folding in float32 would lose what is left."""
    weights = {"w": normal(4, 4, 1, 1), "k": np.full(4, 1e4, np.float32), **norm(4), "m": np.full(4, 1e4, np.float32)}
    model = build(
        "g (float[1, 4, 6, 6] x) => (float[a, e, c, d] y) { t = Conv(x, w, k) y = BatchNormalization(t, g, b, m, v) }",
        weights=weights,
    )
    folded, _ = FoldBatchNorm()(model.clone())
    x = normal(1, 4, 6, 6)
    exact = np.einsum("oi,nihw->nohw", weights["w"][:, :, 0, 0].astype(np.float64), x)
    scale = (weights["g"] / np.sqrt(weights["v"].astype(np.float64) + 1e-5))[:, None, None]
    np.testing.assert_allclose(run(folded, x=x)[0], exact * scale + weights["b"][:, None, None], atol=1e-5)
