from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from toolkit import machine
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model
from toolkit.providers import registry
from toolkit.providers.placement import Activations, Variant, Weights, placement_rules, shipped_rules
from toolkit.quantizer.calibration.collect import Origin, calibrate
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.lowering.qdq import activation_scale, quantized, weight_steps
from toolkit.quantizer.lowering.static import lower_static
from toolkit.quantizer.preparing import prepare
from toolkit.quantizer.samples import open_samples
from toolkit.tensors import Array
from toolkit.verifier.metrics import compare_arrays

CPU = placement_rules("cpu.toml").variants[0]
Items = list[dict[str, Array]]


def lower(path: Path, items: Items, variant: Variant = CPU, observer: str = "minmax") -> tuple[Lowered, Path]:
    """The statically quantized model, and the file it was saved to (which onnx.checker has seen)."""
    model = prepare(load_model(path), opset=13, where=path).model
    record = calibrate(model, open_samples(items, facts(path)), Origin("m", "h"))
    lowered = lower_static(model, variant, record, observer)  # type: ignore[arg-type]  # a name
    output = path.with_suffix(f".{variant.name}.int8.onnx")
    save_model(lowered.model, output)
    return lowered, output


def snr(path: Path, other: Path, feeds: Mapping[str, Array], provider: str = "cpu") -> float:
    outputs = [registry.provider(provider).open(item)(feeds) for item in (path, other)]
    return min(compare_arrays(outputs[0][name], outputs[1][name]).snr_db for name in outputs[0])


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def tensors(path: Path) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


VARIANTS = [(name, variant) for name, rules in shipped_rules().items() for variant in rules.variants]


@pytest.mark.parametrize(("provider", "variant"), VARIANTS, ids=[f"{name}-{item.name}" for name, item in VARIANTS])
@pytest.mark.parametrize("engine", ["cpu", "openvino"])
def test_every_placement_runs_on_every_engine_and_keeps_the_numbers(
    provider: str, variant: Variant, engine: str, cnn: Path, images: Items, block: Path, sequences: Items
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    for path, items in ((cnn, images), (block, sequences)):
        lowered, output = lower(path, items, variant)
        assert sum(lowered.quantized.values()) >= 4
        assert facts(output).quantized
        assert snr(path, output, items[0], engine) > 28


def test_what_ran_is_int8(cnn: Path, images: Items) -> None:
    lowered, output = lower(cnn, images)
    assert lowered.quantized == {"Conv": 3, "Add": 1, "GlobalAveragePool": 1, "Gemm": 1}
    proof = registry.provider("cpu").open(output).prove(images[0])
    assert proof.executed_precision.get("int8", 0) + proof.executed_precision.get("uint8", 0) >= 8
    assert proof.executed_precision.get("float32", 0) <= 2


def test_pairs_stand_where_the_plan_says(cnn: Path, images: Items) -> None:
    _, output = lower(cnn, images)
    found = operators(output)
    # Pairs on x, r, c, t, p, e, g and f; constants of four weights and three biases.
    assert found["QuantizeLinear"] == 8
    assert found["DequantizeLinear"] == 8 + 4 + 3
    assert {name: found[name] for name in ("Conv", "Add", "Gemm", "MaxPool")} == {
        "Conv": 3, "Add": 1, "Gemm": 1, "MaxPool": 1,
    }  # fmt: skip


def test_a_residual_sum_reads_what_was_not_rounded(block: Path, sequences: Items) -> None:
    _, output = lower(block, sequences)
    graph = onnx.load(output).graph
    last = next(node for node in graph.node if "y" in node.output)
    assert list(last.input) == ["l", "u"]


def test_weights_are_int8_per_channel_and_no_float_copy_stays(cnn: Path, images: Items) -> None:
    _, output = lower(cnn, images)
    found = tensors(output)
    assert found["w2_quantized"].dtype == np.int8
    assert found["w2_scale"].shape == (8,)
    assert found["b2_quantized"].dtype == np.int32
    assert not {"w1", "w2", "w3", "w4", "b1", "b2"} & found.keys()
    assert output.stat().st_size < cnn.stat().st_size * 2  # Q/DQ nodes weigh more than these few weights


def test_inputs_and_outputs_keep_their_names_and_types(cnn: Path, images: Items) -> None:
    _, output = lower(cnn, images)
    assert facts(output).inputs == facts(cnn).inputs
    assert facts(output).outputs == facts(cnn).outputs


def test_a_weight_that_two_nodes_share_is_stored_once(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,8] y) {'
        " a = MatMul(x, w)\n r = Relu(a)\n b = MatMul(r, w)\n y = Mul(b, w0) }",
        {"w": (8, 8), "w0": (1, 8)},
    )
    items = [{"x": np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)}]
    lowered, output = lower(path, items)
    assert lowered.quantized == {"MatMul": 2}
    assert sum(array.dtype == np.int8 and array.ndim == 2 for array in tensors(output).values()) == 1
    assert snr(path, output, items[0]) > 25


def test_a_weight_that_a_float_node_reads_too_keeps_its_float_form(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[8,8] x) => (float[8,8] y) {'
        " a = MatMul(x, w)\n y = Mul(a, w) }",
        {"w": (8, 8)},
    )
    items = [{"x": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)}]
    _, output = lower(path, items)
    assert {"w", "w_quantized"} <= tensors(output).keys()


def test_a_result_that_is_a_model_output_keeps_its_name(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[N,4,6,6] mid, float[N,4,4,4] y) {'
        " mid = Conv(x, w1)\n y = Conv(mid, w2) }",
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3)},
    )
    items = [{"x": np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)}]
    _, output = lower(path, items)
    assert [spec.name for spec in facts(output).outputs] == ["mid", "y"]
    assert snr(path, output, items[0]) > 30


def test_a_huge_bias_widens_the_weights_step_instead_of_overflowing(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,2] y) { y = Gemm(x, w, b) }',
        {"w": np.full((4, 2), 1e-6, np.float32), "b": np.array([5e4, 1.0], np.float32)},
    )
    items = [{"x": np.random.default_rng(0).uniform(0, 1e-3, (16, 4)).astype(np.float32)}]
    _, output = lower(path, items)
    got = registry.provider("cpu").open(output)(items[0])["y"]
    assert np.allclose(got, [5e4, 1.0], rtol=1e-3)


def test_all_zero_tensors_and_weights_do_no_harm(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) {'
        " a = MatMul(x, zeros)\n b = MatMul(a, w)\n c = MatMul(x, w)\n y = Add(b, c) }",
        {"zeros": np.zeros((4, 4), np.float32), "w": (4, 4)},
    )
    items = [{"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}]
    lowered, output = lower(path, items)
    assert lowered.quantized == {"MatMul": 2}
    assert [item.reason for item in lowered.left if item.operator == "MatMul"] == [
        "its tensor is all zero in calibration"
    ]
    assert snr(path, output, items[0]) > 28


def test_the_same_twice_is_the_same_bytes(cnn: Path, images: Items) -> None:
    first = lower(cnn, images)[1].read_bytes()
    assert lower(cnn, images)[1].read_bytes() == first


@pytest.mark.parametrize(
    ("bounds", "kind", "step", "zero"),
    [
        ((0.0, 2.55), Activations("uint8"), 0.01, 0),
        ((-2.55, 0.0), Activations("uint8"), 0.01, 255),
        ((-1.0, 1.55), Activations("uint8"), 0.01, 100),
        ((-1.0, 1.55), Activations("int8"), 0.01, -28),
        ((-1.27, 1.0), Activations("int8", symmetric=True), 0.01, 0),
    ],
)
def test_scales(bounds: tuple[float, float], kind: Activations, step: float, zero: int) -> None:
    found = activation_scale(bounds, kind)
    assert (found.step, found.zero) == (pytest.approx(step), zero)


def test_without_wide_sums_weights_keep_to_seven_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
    kind = Weights(full_range_needs=("avx512_vnni",))
    monkeypatch.setattr(machine, "cpu_features", lambda: ("avx2",))
    assert np.abs(quantized(weight, weight_steps(weight, 1, kind), 1)).max() == 63
    monkeypatch.setattr(machine, "cpu_features", lambda: ("avx2", "avx512_vnni"))
    assert np.abs(quantized(weight, weight_steps(weight, 1, kind), 1)).max() == 127
