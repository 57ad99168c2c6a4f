"""Bias correction: rounded weights move the means of channels, and the bias takes that back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from toolkit.data import from_iterable
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model
from toolkit.graph.shapes import infer
from toolkit.providers.placement import placement_rules
from toolkit.quantizer.api import quantize
from toolkit.quantizer.lowering.correction import bias_home, correct_biases, mean_shifts
from toolkit.quantizer.plan import Plan, make_plan
from toolkit.quantizer.preparing import prepare
from toolkit.tensors import Array

VARIANT = placement_rules("cpu.toml").variant("unsigned")
MODELS = {
    "conv": "g (float[N,4,8,8] x) => (float[N,6,6,6] y) { y = Conv(x, w, b) }",
    "gemm": "g (float[N,8] x) => (float[N,6] y) { y = Gemm<transB=1>(x, w, b) }",
    "matmul": "g (float[N,T,8] x) => (float[N,T,6] y) { p = MatMul(x, w)\n y = Add(b, p) }",
}
SHAPES = {
    "conv": ((6, 4, 3, 3), (5, 4, 8, 8)),
    "gemm": ((6, 8), (5, 8)), "matmul": ((8, 6), (5, 3, 8)),
}  # fmt: skip
Write = Callable[..., Path]


def prepared(write: Write, kind: str, opset: int) -> tuple[ir.Model, Plan, list[dict[str, Array]]]:
    weight, sample = SHAPES[kind]
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    weights = {"w": weight, "b": (6,)}
    model = prepare(load_model(write(header + MODELS[kind], weights)), opset=opset, where="test").model
    # Positive inputs, so that rounding errors of weights do not cancel in the mean.
    values = np.random.default_rng(3).random(sample).astype(np.float32)
    return model, make_plan(model, VARIANT, infer(model)), [{"x": values}]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("kind", MODELS)
def test_shifts_are_what_rounding_moves_the_means_by(write: Write, kind: str, opset: int) -> None:
    model, plan, items = prepared(write, kind, opset)
    rounded = model.clone()
    ranges = {name: (0.0, 1.0) if name == "x" else (-8.0, 8.0) for name in plan.tensors}
    data = from_iterable(items, inputs=facts(model).inputs)
    node = plan.nodes[0].node.name or ""
    shifts = mean_shifts(model, plan, ranges, data)
    assert shifts[node].shape == (6,)
    assert 0 < np.abs(shifts[node]).max() < 0.05
    again = make_plan(rounded, VARIANT, infer(rounded))
    assert correct_biases(rounded, again, shifts) == 1
    home = bias_home(again.nodes[0].node)
    assert home is not None
    corrected = home.node.inputs[home.operand]
    assert corrected is not None and corrected.const_value is not None
    bias = model.graph.initializers["b"].const_value
    assert bias is not None
    np.testing.assert_allclose(corrected.const_value.numpy(), bias.numpy() - shifts[node], rtol=1e-6)


def test_no_bias_is_given_to_a_node_without(write: Write, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,8,8] x) => (float[N,6,6,6] y) { y = Conv(x, w) }'
    items = [{"x": np.random.default_rng(3).random((16, 4, 8, 8)).astype(np.float32)}]
    report = quantize(write(text, {"w": (6, 4, 3, 3)}), tmp_path / "o.onnx", method="static", calibration=items)
    conv = next(node for node in onnx.load(report.output).graph.node if node.op_type == "Conv")
    assert len(conv.input) == 2


def test_a_bias_that_two_nodes_share_is_not_changed_for_both(write: Write, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\n' + (
        "g (float[N,8] x) => (float[N,6] y, float[N,6] z) { y = Gemm<transB=1>(x, w, b)\n z = Add(y, b) }"
    )
    source = write(text, {"w": (6, 8), "b": (6,)})
    items = [{"x": np.random.default_rng(3).random((16, 8)).astype(np.float32)}]
    report = quantize(source, tmp_path / "o.onnx", method="static", calibration=items)
    model = onnx.load(report.output)
    shared = next(item for item in model.graph.initializer if item.name == "b")
    original = next(item for item in onnx.load(source).graph.initializer if item.name == "b")
    assert shared.raw_data == original.raw_data


def test_a_correction_is_kept_where_it_comes_closer(write: Write, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\n' + MODELS["conv"]
    source = write(text, {"w": (6, 4, 3, 3), "b": (6,)})
    items = [{"x": np.random.default_rng(3).random((16, 4, 8, 8)).astype(np.float32)}]
    corrected = quantize(source, tmp_path / "a.onnx", method="static", calibration=items, data=items)
    plain = quantize(source, tmp_path / "b.onnx", method="static", calibration=iter(items), data=items)
    assert corrected.outputs[0].snr_db >= plain.outputs[0].snr_db
    assert ("corrected" in " ".join(corrected.notes)) == (corrected.sha256 != plain.sha256)
