"""Concat between quantized nodes: one scale for what goes in and what comes out, unless ranges differ too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model
from toolkit.providers import registry
from toolkit.providers.placement import Variant, placement_rules
from toolkit.quantizer.calibration.collect import Origin, calibrate
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.lowering.static import lower_static
from toolkit.quantizer.preparing import prepare
from toolkit.quantizer.samples import open_samples
from toolkit.tensors import Array
from toolkit.verifier.metrics import compare_arrays

CPU, OPENVINO = (placement_rules(f"{name}.toml") for name in ("cpu", "openvino"))
UNSIGNED = CPU.variants[0]
STEM = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,16,16] x) => (float[N,8,H,W] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1)
  r = Relu(a)
  b = Conv<pads=[1,1,1,1]>(x, w2)
  s = Relu(b)
"""
JOINED = STEM + "c = Concat<axis=1>(r, s)\n y = Conv(c, w3) }"
Items = list[dict[str, Array]]
Write = Callable[..., Path]


def lower(path: Path, items: Items, variant: Variant = UNSIGNED) -> tuple[Lowered, Path]:
    """The statically quantized model, and the file it was saved to (which onnx.checker has seen)."""
    model = prepare(load_model(path), opset=13, where=path).model
    record = calibrate(model, open_samples(items, facts(path)), Origin("m", "h"))
    lowered = lower_static(model, variant, record, "minmax")
    output = path.with_suffix(".int8.onnx")
    save_model(lowered.model, output)
    return lowered, output


def snr(path: Path, other: Path, feeds: dict[str, Array]) -> float:
    outputs = [registry.provider("cpu").open(item)(feeds)["y"] for item in (path, other)]
    return compare_arrays(*outputs).snr_db


def weights(*inputs: int, small: float = 1.0) -> dict[str, tuple[int, ...] | Array]:
    """Of the two convolutions of STEM, the first ``small`` times as large, and of 1x1 ones from w3 on."""
    generator = np.random.default_rng(0)
    sizes = {"w1": (3, 3), "w2": (3, 3), **{f"w{3 + index}": (count, 1) for index, count in enumerate(inputs)}}
    made = {name: generator.standard_normal((8, n, k, k)) / np.sqrt(n * k * k) for name, (n, k) in sizes.items()}
    return {name: (array * (small if name == "w1" else 1)).astype(np.float32) for name, array in made.items()}


def scales(path: Path) -> dict[str, tuple[float, int]]:
    """Step and zero point of each tensor with a Q behind it."""
    graph = onnx.load(path).graph
    known = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    pairs = (node.input for node in graph.node if node.op_type == "QuantizeLinear")
    return {value: (known[step].item(), known[zero].item()) for value, step, zero in pairs}


def reasons(lowered: Lowered) -> dict[str, str]:
    return {item.node: item.reason for item in lowered.left if item.operator == "Concat"}


def operators_run(path: Path, ran: Path) -> list[str]:
    """What ONNX Runtime makes of the model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(ran)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(ran).graph.node]


@pytest.mark.parametrize("variant", [*CPU.variants, OPENVINO.variants[0]], ids=["cpu", "gemm", "openvino"])
def test_what_a_concat_reads_and_gives_has_one_scale(variant: Variant, write: Write, images: Items) -> None:
    tail = "c = Concat<axis=1>(r, s)\n p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)\n y = Conv(p, w3) }"
    path = write(STEM + tail, weights(16, small=0.7))
    lowered, output = lower(path, images, variant)
    found = scales(output)
    assert lowered.quantized == {"Conv": 3, "Concat": 1}
    assert found["r"] == found["s"] == found["c"] == found["p"] != found["x"]
    assert snr(path, output, images[0]) > 28


def test_all_that_runs_is_int8_even_where_pools_and_convolutions_read_the_same(
    write: Write, images: Items, tmp_path: Path
) -> None:
    tail = """c = Concat<axis=1>(r, s)
      d = Conv(c, w3)
      u = Relu(d)
      p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(c)
      q = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)
      e = Conv(p, w4)
      v = Relu(e)
      f = Concat<axis=1>(u, v, q)
      y = Conv(f, w5) }"""
    path = write(STEM + tail, weights(16, 16, 32))
    _, output = lower(path, images)
    ran = operators_run(output, tmp_path / "ran.onnx")
    assert (ran.count("QLinearConv"), ran.count("QLinearConcat")) == (5, 2)
    assert (ran.count("QuantizeLinear"), ran.count("DequantizeLinear")) == (1, 1)
    assert snr(path, output, images[0]) > 28


def test_ranges_are_joined_through_chains_and_shared_operands(write: Write, images: Items) -> None:
    tail = """c = Concat<axis=1>(r, s)
      d = Conv(c, w3)
      u = Relu(d)
      p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(c)
      e = Concat<axis=1>(p, u)
      f = Conv(x, w4)
      v = Relu(f)
      h = Concat<axis=1>(v, s)
      i = Conv(e, w5)
      j = Conv(h, w6)
      y = Add(i, j) }"""
    lowered, output = lower(write(STEM + tail, weights(16, 3, 24, 16)), images)
    found = scales(output)
    assert lowered.quantized["Concat"] == 3
    assert len({found[name] for name in ("r", "s", "c", "p", "u", "e", "v", "h")}) == 1
    assert len({found[name] for name in ("x", "s", "i", "j")}) == 4


def test_a_small_tensor_that_others_read_too_keeps_its_own_scale(write: Write, images: Items) -> None:
    tail = "c = Concat<axis=1>(r, s)\n d = Conv(c, w3)\n e = Conv(r, w4)\n y = Add(d, e) }"
    path = write(STEM + tail, weights(16, 8, small=0.01))
    lowered, output = lower(path, images)
    found = scales(output)
    assert list(reasons(lowered).values()) == ["its operands' ranges differ too much for one scale: r"]
    assert "Concat" not in lowered.quantized
    assert found["r"][0] * 10 < found["s"][0]
    assert snr(path, output, images[0]) > 28


@pytest.mark.parametrize("bound", ["Relu(b)", "Clip(b, low, high)"])
def test_no_range_reaches_beyond_a_relu_or_clip(bound: str, write: Write, images: Items, tmp_path: Path) -> None:
    """ONNX Runtime would keep it, in float, and the convolution before it too."""
    text = JOINED.replace("(r, s)", "(a, s)").replace("Relu(b)", bound)
    bounds = {"low": np.float32(0), "high": np.float32(0.5)}
    lowered, output = lower(write(text, {**weights(16), **bounds}), images)
    assert list(reasons(lowered).values()) == ["one scale would reach beyond the Relu or Clip of s"]
    ran = operators_run(output, tmp_path / "ran.onnx")
    assert ran.count("QLinearConv") == 3


def test_a_refused_concat_leaves_the_others_alone(write: Write, images: Items) -> None:
    tail = """c = Concat<axis=1>(r, s)
      d = Conv(c, w3)
      f = Conv(r, w4)
      v = Relu(f)
      e = Concat<axis=1>(r, v)
      h = Conv(e, w5)
      y = Add(d, h) }"""
    lowered, output = lower(write(STEM + tail, weights(16, 8, 16, small=0.01)), images)
    found = scales(output)
    assert lowered.quantized["Concat"] == 1
    assert len(reasons(lowered)) == 1
    assert found["r"] == found["v"] == found["e"]
    assert found["r"][0] * 10 < found["s"][0]


def test_a_small_tensor_that_the_concat_alone_reads_loses_nothing(write: Write, images: Items) -> None:
    """It is rounded in the steps of the result in either way."""
    path = write(JOINED, weights(16, small=0.05))
    lowered, output = lower(path, images)
    together = snr(path, output, images[0])
    rules = tuple(rule for rule in UNSIGNED.rules if not rule.one_scale)
    apart, output = lower(path, images, msgspec.structs.replace(UNSIGNED, rules=rules))
    assert (lowered.quantized["Concat"], apart.quantized.get("Concat")) == (1, None)
    assert together > snr(path, output, images[0]) - 0.1


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("t = Sigmoid(s)\n c = Concat<axis=1>(r, t)\n y = Conv(c, w3) }", "operand 1 is not quantized"),
        ("c = Concat<axis=1>(r, s)\n t = Sigmoid(c)\n y = Conv(t, w3) }", "no quantized node reads it"),
        ("c = Concat<axis=1>(r, s)\n d = Concat<axis=1>(c, r)\n y = Sigmoid(d) }", "no quantized node reads it"),
        ("c = Concat<axis=0>(r, k)\n y = Conv(c, w3) }", "operand 1 is a constant"),
    ],
)
def test_other_concats_stay_float(tail: str, reason: str, write: Write, images: Items) -> None:
    lowered, _ = lower(write(STEM + tail, {**weights(16), "k": np.ones((1, 8, 16, 16), np.float32)}), images)
    assert set(reasons(lowered).values()) == {reason}
    assert "Concat" not in lowered.quantized


def test_concats_of_floats_and_of_shapes_are_not_mentioned(write: Write, images: Items) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,16,16] x) => (float[N,8,H,W] y) {
      n = Shape<start=0, end=1>(x)
      sizes = Concat<axis=0>(n, rest)
      t = Sigmoid(x)
      v = Reshape(t, sizes)
      c = Concat<axis=1>(x, v)
      y = Conv(c, w3)
    }"""
    lowered, _ = lower(write(text, {**weights(6), "rest": np.array([3, 16, 16])}), images)
    assert lowered.quantized == {"Conv": 1}
    assert not reasons(lowered)


def test_signed_activations_keep_their_own_scales_on_openvino(write: Write, images: Items) -> None:
    """OpenVINO 2026.4 was no faster with one scale, and computed wrong numbers."""
    lowered, _ = lower(write(JOINED, weights(16)), images, OPENVINO.variant("signed"))
    assert lowered.quantized == {"Conv": 3}
