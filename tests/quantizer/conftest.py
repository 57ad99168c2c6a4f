"""Small models that hold what quantization stumbles over, and ways to run them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from toolkit.tensors import Array

CNN = """
<ir_version: 8, opset_import: ["" : 17]>
cnn (float[N,3,16,16] x) => (float[N,10] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, w2, b2)
  s = Add(c, r)
  t = Relu(s)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t)
  d = Conv<pads=[1,1,1,1]>(p, w3)
  e = Clip(d, low, high)
  g = GlobalAveragePool(e)
  f = Flatten(g)
  y = Gemm<transB=1>(f, w4, b4)
}"""
CNN_WEIGHTS = {
    "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (16, 8, 3, 3), "w4": (10, 16), "b4": (10,),
}  # fmt: skip
BLOCK = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[N,T,32] x) => (float[N,T,32] y) {
  h = LayerNormalization(x, scale, shift)
  q = MatMul(h, wq)
  qb = Add(q, bq)
  k = MatMul(h, wk)
  kt = Transpose<perm=[0,2,1]>(k)
  v = MatMul(h, wv)
  z = MatMul(qb, kt)
  a = Softmax(z)
  o = MatMul(a, v)
  u = Add(o, x)
  m = MatMul(u, w1)
  n = Relu(m)
  l = MatMul(n, w2)
  y = Add(l, u)
}"""
BLOCK_WEIGHTS = {
    "wq": (32, 32), "bq": (32,), "wk": (32, 32), "wv": (32, 32), "w1": (32, 64), "w2": (64, 32), "scale": (32,),
    "shift": (32,),
}  # fmt: skip


def build(text: str, weights: dict[str, tuple[int, ...] | Array], seed: int = 0) -> onnx.ModelProto:
    """The model in ONNX's text form with these initializers: arrays, or shapes of random ones."""
    generator = np.random.default_rng(seed)
    model = onnx.parser.parse_model(text)
    for name, given in weights.items():
        if isinstance(given, tuple):
            fan_in = max(1, int(np.prod(given)) // max(given)) if len(given) > 1 else 1
            given = (generator.standard_normal(given) / np.sqrt(fan_in)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(given), name))
    return model


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Build and save a model; returns its path."""

    def save(text: str, weights: dict[str, tuple[int, ...] | Array], name: str = "model.onnx") -> Path:
        path = tmp_path / name
        onnx.save(build(text, weights), path)
        return path

    return save


@pytest.fixture
def cnn(write: Callable[..., Path]) -> Path:
    """Convolutions with bias, Relu, Clip and a residual sum; a Gemm at the end."""
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    return write(CNN, {**CNN_WEIGHTS, **bounds}, "cnn.onnx")


@pytest.fixture
def block(write: Callable[..., Path]) -> Path:
    """One transformer block: attention, residual sums, two dynamic dims."""
    return write(BLOCK, BLOCK_WEIGHTS, "block.onnx")


@pytest.fixture
def images() -> list[dict[str, Array]]:
    generator = np.random.default_rng(1)
    return [{"x": generator.standard_normal((8, 3, 16, 16)).astype(np.float32)} for _ in range(4)]


@pytest.fixture
def sequences() -> list[dict[str, Array]]:
    generator = np.random.default_rng(1)
    return [{"x": generator.standard_normal((2, 5 + length, 32)).astype(np.float32)} for length in range(4)]
