"""Small models as texts, and samples for them."""

from __future__ import annotations

import numpy as np

from toolkit.tensors import Array

Items = list[dict[str, Array]]
HEAD = '<ir_version: 8, opset_import: ["" : 17]> '
MATMUL = HEAD + "g (float[N,16] x) => (float[N,4] y) { y = MatMul(x, w) }"


def vectors(count: int = 32, width: int = 16) -> Items:
    return [{"x": np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)}]
