from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model
from toolkit.providers import registry
from toolkit.quantizer.calibration.collect import Origin, calibrate
from toolkit.quantizer.lowering.half import OPSETS, Half, lower_half
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.preparing import prepare
from toolkit.quantizer.samples import open_samples
from toolkit.tensors import Array
from toolkit.verifier.metrics import compare_arrays

Items = list[dict[str, Array]]
ENGINES: dict[Half, str] = {"float16": "cpu", "bfloat16": "openvino"}
HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def lower(path: Path, half: Half, record_items: Items | None = None) -> tuple[Lowered, Path]:
    model = prepare(load_model(path), opset=OPSETS[half], where=path).model
    record = None
    if record_items is not None:
        record = calibrate(model, open_samples(record_items, facts(path)), Origin("m", "h"))
    lowered = lower_half(model, half, record=record)
    output = path.with_suffix(f".{half}.onnx")
    save_model(lowered.model, output)
    return lowered, output


def run(path: Path, feeds: dict[str, Array], engine: str = "cpu") -> dict[str, Array]:
    return registry.provider(engine).open(path)(feeds)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_values_are_narrow_and_the_edges_are_not(
    half: Half, cnn: Path, images: Items, block: Path, sequences: Items
) -> None:
    if half == "bfloat16":
        pytest.importorskip("openvino")
    for path, items in ((cnn, images), (block, sequences)):
        lowered, output = lower(path, half)
        assert not lowered.left
        found = facts(output)
        assert found.precision == half
        assert (found.inputs, found.outputs) == (facts(path).inputs, facts(path).outputs)
        assert found.operators["Cast"] == 2
        assert output.stat().st_size < path.stat().st_size
        wanted, got = run(path, items[0]), run(output, items[0], ENGINES[half])
        assert compare_arrays(wanted["y"], got["y"]).snr_db > {"float16": 55, "bfloat16": 35}[half]


def test_squares_stay_float32_between_casts(write: Callable[..., Path]) -> None:
    path = write(
        HEAD + "g (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w)\n p = Pow(a, two)\n y = MatMul(p, w) }",
        {"w": (8, 8), "two": np.float32(2)},
    )
    lowered, output = lower(path, "float16")
    assert [(item.operator, item.reason) for item in lowered.left] == [("Pow", "overflows float16 easily")]
    assert facts(output).operators["Cast"] == 4
    feeds = {"x": np.ones((2, 8), np.float32)}
    assert compare_arrays(run(path, feeds)["y"], run(output, feeds)["y"]).snr_db > 50


def test_an_operator_without_the_type_in_this_opset_stays_float32(write: Callable[..., Path]) -> None:
    path = write(
        HEAD + "g (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w)\n s = Celu(a)\n y = MatMul(s, w) }",
        {"w": (8, 8)},
    )
    lowered, _ = lower(path, "bfloat16")
    assert [(item.operator, item.reason) for item in lowered.left] == [("Celu", "has no bfloat16 form in opset 22")]


def test_constants_beyond_the_range_are_cut_and_said(write: Callable[..., Path]) -> None:
    path = write(
        HEAD + "g (float[N,4] x) => (float[N,4] y) { a = Add(x, mask)\n y = Softmax(a) }",
        {"mask": np.array([0, 0, -3.4e38, 0], np.float32)},
    )
    lowered, output = lower(path, "float16")
    assert lowered.notes == ("1 constants beyond ±65504 were cut to it",)
    feeds = {"x": np.ones((2, 4), np.float32)}
    assert np.allclose(run(output, feeds)["y"], run(path, feeds)["y"], atol=1e-3)


def test_nodes_that_calibration_saw_overflow_stay_float32(write: Callable[..., Path]) -> None:
    path = write(
        HEAD + "g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, big)\n b = MatMul(a, small)\n y = MatMul(b, w) }",
        {"big": np.full((4, 4), 3e4, np.float32), "small": np.full((4, 4), 1e-5, np.float32), "w": (4, 4)},
    )
    items = [{"x": np.random.default_rng(0).uniform(1, 2, (8, 4)).astype(np.float32)}]
    assert not lower(path, "float16")[0].left
    lowered, output = lower(path, "float16", items)
    assert {item.reason for item in lowered.left} == {"calibration saw values near the end of float16's range"}
    assert np.allclose(run(output, items[0])["y"], run(path, items[0])["y"], rtol=1e-2)


def test_subgraphs_read_float32(write: Callable[..., Path]) -> None:
    path = write(
        HEAD
        + """g (float[N,8] x, bool c) => (float[N,8] y) {
          h = MatMul(x, w)
          z = If(c) <
            then_branch = t () => (float[N,8] a) { a = MatMul(h, w) },
            else_branch = e () => (float[N,8] b) { b = Relu(h) }>
          y = MatMul(z, w)
        }""",
        {"w": (8, 8)},
    )
    lowered, output = lower(path, "float16")
    assert Counter(item.reason for item in lowered.left) == {"has subgraphs": 1}
    for branch in (True, False):
        feeds = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32), "c": np.array(branch)}
        assert compare_arrays(run(path, feeds)["y"], run(output, feeds)["y"]).snr_db > 50


def test_casts_shapes_and_mixed_operands(write: Callable[..., Path]) -> None:
    path = write(
        HEAD
        + """g (int64[N,4] ids, float[N,4] x) => (float[N,4] y, int64[2] s, float[N,4] same) {
          f = Cast<to=1>(ids)
          a = Add(f, x)
          m = Greater(a, x)
          y = Where(m, a, x)
          s = Shape(y)
          same = Identity(x)
        }""",
        {},
    )
    lowered, output = lower(path, "float16")
    assert not lowered.left
    feeds = {"ids": np.arange(8).reshape(2, 4), "x": np.full((2, 4), 0.5, np.float32)}
    wanted, got = run(path, feeds), run(output, feeds)
    assert all(np.array_equal(wanted[name], got[name]) for name in wanted)
    assert all(wanted[name].dtype == got[name].dtype for name in wanted)


def test_recurrent_layers_and_sizes(write: Callable[..., Path]) -> None:
    path = write(
        HEAD
        + """g (float[T,N,4] x, float[N,1,6,6] i) => (float[T,1,N,8] y, float[N,1,12,12] j) {
          y, h = GRU<hidden_size=8>(x, w, r)
          j = Resize(i, , scales)
        }""",
        {"w": (1, 24, 4), "r": (1, 24, 8), "scales": np.array([1, 1, 2, 2], np.float32)},
    )
    lowered, output = lower(path, "float16")
    assert [item.operator for item in lowered.left] == ["Resize"]
    assert lowered.quantized["GRU"] == 1
    feeds = {"x": np.ones((3, 2, 4), np.float32), "i": np.ones((2, 1, 6, 6), np.float32)}
    assert compare_arrays(run(path, feeds)["y"], run(output, feeds)["y"]).snr_db > 45


def test_the_same_twice_is_the_same_bytes(cnn: Path) -> None:
    assert lower(cnn, "float16")[1].read_bytes() == lower(cnn, "float16")[1].read_bytes()
    assert onnx.load(lower(cnn, "bfloat16")[1]).opset_import[0].version == 22
