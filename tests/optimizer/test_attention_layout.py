"""Reshapes and transposes that torch writes around the keys of an attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graph.building import build, normal, types
from tests.optimizer.applying import apply
from toolkit.optimizer.api import optimize_model
from toolkit.optimizer.passes.merge_transposes import MergeTransposes
from toolkit.optimizer.passes.remove_dead_code import RemoveDeadCode
from toolkit.optimizer.passes.unwrap_transpose import UnwrapTranspose

K = normal(2, 3, 5, 4)
# torch's own, sizes read from the Shape of what is reshaped.
DYNAMIC = """
    sh = Shape(k) t = Slice(sh, m2, m1) lead = Slice(sh, low, m2) into = Concat<axis=0>(m1, t, four)
    out = Concat<axis=0>(lead, four, t)
"""
SIZES = {
    "m1": np.array([-1]), "m2": np.array([-2]), "low": np.array([np.iinfo(np.int64).min]), "four": np.array([4]),
    "i0": np.array([0]), "i1": np.array([1]), "i2": np.array([2]), "five": np.array([5]),
}  # fmt: skip


def keys(head: str, sizes: str, *, perm: str = "0, 2, 1", **weights: Any) -> Any:
    body = f"{sizes} a = Reshape(k, into) b = Transpose<perm=[{perm}]>(a) y = Reshape(b, out)"
    return build(f"g ({head} k) => (float[p, q, r, s] y) {{ {body} }}", weights={**SIZES, **weights}, opset=20)


@pytest.mark.parametrize(
    ("head", "sizes", "weights"),
    [
        ("float[b, 3, t, 4]", DYNAMIC, {}),
        ("float[b, h, t, 4]", DYNAMIC, {}),
        ("float[b, 3, 5, 4]", "", {"into": np.array([-1, 5, 4]), "out": np.array([-1, 3, 4, 5])}),
        ("float[2, 3, 5, 4]", "", {"into": np.array([-1, 5, 4]), "out": np.array([2, 3, 4, 5])}),
        ("float[2, 3, 5, 4]", "", {"into": np.array([-1, 5, 4]), "out": np.array([2, -1, 4, 5])}),
    ],
)
def test_a_transpose_between_two_reshapes_is_one_transpose(head: str, sizes: str, weights: Any) -> None:
    result, _ = apply(UnwrapTranspose(), keys(head, sizes, **weights), changed=1, k=K)
    cleaned, _ = RemoveDeadCode()(result)
    assert types(cleaned) == ["Transpose"]
    assert list(cleaned.graph[0].attributes["perm"].as_ints()) == [0, 1, 3, 2]


@pytest.mark.parametrize(
    ("head", "sizes", "weights"),
    [
        # The rows are joined with the heads, or split elsewhere than they were joined.
        ("float[2, 3, 5, 4]", "", {"into": np.array([2, 15, 4]), "out": np.array([2, 3, 4, 5])}),
        ("float[2, 3, 5, 4]", "", {"into": np.array([-1, 4, 5]), "out": np.array([2, 3, 5, 4])}),
        ("float[2, 3, 5, 4]", "", {"into": np.array([-1, 5, 4]), "out": np.array([3, 2, 4, 5])}),
        ("float[2, 3, 5, 4]", "", {"into": np.array([-1, 5, 4]), "out": np.array([2, 3, 5, 4])}),
        # Sizes that only happen to fit.
        ("float[b, 3, t, 4]", "", {"into": np.array([-1, 5, 4]), "out": np.array([2, 3, 4, 5])}),
        ("float[b, 3, t, 4]", "", {"into": np.array([-1, 5, 4]), "out": np.array([-1, 3, 4, 5])}),
        ("float[2, 3, 5, 4]", "", {"into": np.array([0, 15, 4]), "out": np.array([2, 3, 4, 5])}),
    ],
)
def test_reshapes_that_mix_axes_stay(head: str, sizes: str, weights: Any) -> None:
    _, report = apply(UnwrapTranspose(), keys(head, sizes, **weights), changed=0, k=K)
    assert report.skipped == {"the reshapes may do more than join and split the leading axes": 1}


def test_another_transpose_is_no_case_for_it() -> None:
    source = keys("float[2, 3, 5, 4]", "", perm="1, 0, 2", into=np.array([-1, 5, 4]), out=np.array([5, 2, 3, 4]))
    _, report = apply(UnwrapTranspose(), source, changed=0, k=K)
    assert report.skipped == {}


def test_transposes_in_a_row_are_one() -> None:
    model = build(
        """g (float[2, 3, 5, 4] x) => (float[p, q, r, s] y) {
            a = Transpose<perm=[0, 2, 1, 3]>(x) b = Transpose<perm=[0, 1, 3, 2]>(a) y = Transpose<perm=[3, 0, 1, 2]>(b)
        }"""
    )
    result, _ = apply(MergeTransposes(), model, changed=2, x=K)
    assert [node.inputs[0].name for node in result.graph] == ["x", "x", "x"]  # type: ignore[union-attr]
    small, _ = optimize_model(model)
    assert types(small) == ["Transpose"]


def test_transposes_that_cancel_go() -> None:
    model = build(
        """g (float[2, 3, 5, 4] x) => (float[2, 3, 5, 4] y) {
            a = Transpose<perm=[1, 2, 3, 0]>(x) b = Transpose<perm=[3, 0, 1, 2]>(a) y = Relu(b) }"""
    )
    small, _ = optimize_model(model)
    assert types(small) == ["Relu"]
