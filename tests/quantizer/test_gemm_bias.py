"""A MatMul takes its bias in where the engine's int8 kernel for Gemm can, whatever its operand's rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from toolkit.providers import registry
from toolkit.quantizer.api import quantize
from toolkit.tensors import Array

Write = Callable[..., Path]
HEADER = '<ir_version: 8, opset_import: ["" : {opset}]>\n'
PRODUCT = "g (float{dims} x) => (float{out} y) {{ p = MatMul(x, w)\n y = Add(b, p) }}"
RANKS = {
    "matrix": ("[N,8]", "[N,6]", (5, 8)),
    "one dynamic dim": ("[N,3,8]", "[N,3,6]", (5, 3, 8)),
    "two dynamic dims": ("[N,T,8]", "[N,T,6]", (5, 4, 8)),
    "four dims": ("[N,2,T,8]", "[N,2,T,6]", (5, 2, 4, 8)),
}


def lowered(source: Path, output: Path, sample: Array, **options: object) -> onnx.ModelProto:
    options = {"target": "cpu", "placement": "bias-in-gemm", **options}
    report = quantize(source, output, method="static", calibration=[{"x": sample}], **options)  # type: ignore[arg-type]  # few names
    return onnx.load(report.output)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("kind", RANKS)
def test_the_bias_is_taken_in_and_the_numbers_stay(write: Write, tmp_path: Path, kind: str, opset: int) -> None:
    dims, out, shape = RANKS[kind]
    source = write(HEADER.format(opset=opset) + PRODUCT.format(dims=dims, out=out), {"w": (8, 6), "b": (6,)})
    sample = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    model = lowered(source, tmp_path / "o.onnx", sample)
    assert (kinds(model).count("Gemm"), kinds(model).count("MatMul"), kinds(model).count("Add")) == (1, 0, 0)
    onnx.checker.check_model(model, full_check=True)
    answers = [registry.provider("cpu").open(path)({"x": sample})["y"] for path in (source, tmp_path / "o.onnx")]
    assert answers[0].shape == answers[1].shape
    assert np.abs(answers[0] - answers[1]).max() < 0.05


def test_products_that_read_one_tensor_share_its_pair(write: Write, tmp_path: Path) -> None:
    text = "g (float[N,T,8] x) => (float[N,T,6] y, float[N,T,4] z) {\n" + (
        "p = MatMul(x, w)\n y = Add(b, p)\n q = MatMul(x, v)\n z = Add(q, c) }"
    )
    source = write(HEADER.format(opset=17) + text, {"w": (8, 6), "b": (6,), "v": (8, 4), "c": (4,)})
    model = lowered(source, tmp_path / "o.onnx", np.ones((2, 3, 8), np.float32))
    assert kinds(model).count("QuantizeLinear") == 1
    assert kinds(model).count("Reshape") == 3  # one in front of both


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("p = MatMul(x, w)\n y = Add(p, x)", {"w": (8, 8)}, "what is added is no constant"),
        ("p = MatMul(x, w)\n y = Add(p, b)", {"w": (8, 8), "b": (3, 8)}, "it differs from row to row"),
        ("p = MatMul(x, w)\n r = Add(p, b)\n y = Mul(r, p)", {"w": (8, 8), "b": (8,)}, "the product has two readers"),
    ],
)
def test_other_sums_stay(
    write: Write, tmp_path: Path, text: str, weights: dict[str, tuple[int, ...]], reason: str
) -> None:
    source = write(HEADER.format(opset=17) + f"g (float[N,3,8] x) => (float[N,3,8] y) {{ {text} }}", weights)
    model = lowered(source, tmp_path / "o.onnx", np.random.default_rng(0).random((4, 3, 8)).astype(np.float32))
    assert (kinds(model).count("Gemm"), kinds(model).count("MatMul")) == (0, 1), reason


def test_a_bias_too_large_for_int32_stays_float(write: Write, tmp_path: Path) -> None:
    weights = {"w": np.full((8, 6), 1e-6, np.float32), "b": np.full(6, 1e6, np.float32)}
    source = write(HEADER.format(opset=17) + PRODUCT.format(dims="[N,8]", out="[N,6]"), weights)
    model = lowered(source, tmp_path / "o.onnx", np.full((4, 8), 1e-3, np.float32))
    assert kinds(model).count("Gemm") == 0


def test_engines_that_add_it_themselves_are_left_alone(write: Write, tmp_path: Path) -> None:
    source = write(HEADER.format(opset=17) + PRODUCT.format(dims="[N,8]", out="[N,6]"), {"w": (8, 6), "b": (6,)})
    model = lowered(source, tmp_path / "o.onnx", np.ones((4, 8), np.float32), target="openvino", placement="")
    assert (kinds(model).count("Gemm"), kinds(model).count("Add")) == (0, 1)
