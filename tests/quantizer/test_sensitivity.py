"""Nodes that cost accuracy go back to float, the most harmful first and no more than it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from toolkit.quantizer.api import quantize
from toolkit.quantizer.sensitivity import most_harmful
from toolkit.tensors import Array

NODES = tuple(f"n{index}" for index in range(16))
TWO_PATHS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,16] x) => (float[N,16] y) {
  a = MatMul(x, w1)
  b = Relu(a)
  c = MatMul(b, w2)
  d = Relu(c)
  e = MatMul(d, w3)
  f = MatMul(x, p)
  g = MatMul(f, q)
  y = Add(e, g)
}"""


def test_the_most_harmful_come_first_and_few_runs_find_them() -> None:
    harm = {**dict.fromkeys(NODES, 0.001), "n3": 0.5, "n12": 0.9}
    asked: list[Sequence[str]] = []

    def measure(nodes: Sequence[str]) -> float:
        asked.append(nodes)
        return sum(harm[name] for name in nodes)

    found = most_harmful(NODES, measure, runs=1000)
    assert [next(found), next(found)] == ["n12", "n3"]
    assert len(asked) < len(NODES)
    assert sorted(("n12", "n3", *found)) == sorted(NODES)


def test_runs_are_bounded() -> None:
    assert list(most_harmful(NODES, lambda nodes: len(nodes), runs=3)) == []


@pytest.fixture
def amplifying(write: Callable[..., Path]) -> Path:
    """One product is undone by the next, which enlarges small directions 1000 times, rounding included."""
    left, right = (np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))[0] for seed in (0, 1))
    sizes = np.logspace(0, -3, 16)
    matrices = {"p": (left * sizes) @ right, "q": (right.T / sizes) @ left.T}
    small = {name: matrix.astype(np.float32) for name, matrix in matrices.items()}
    return write(TWO_PATHS, {"w1": (16, 16), "w2": (16, 16), "w3": (16, 16), **small})


def vectors(count: int = 64) -> list[dict[str, Array]]:
    return [{"x": np.random.default_rng(2).standard_normal((count, 16)).astype(np.float32)}]


def test_harmful_nodes_go_back_to_float_and_the_report_says_why(amplifying: Path, tmp_path: Path) -> None:
    report = quantize(amplifying, tmp_path / "o.onnx", method="static", calibration=vectors())
    reasons = {item.node: item.reason for item in report.left if "accuracy" in item.reason}
    assert len(reasons) == 2  # the two that amplify, and none of the others
    assert report.quantized == {"MatMul": 3}
    assert report.outputs[0].snr_db > 20
