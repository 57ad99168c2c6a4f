from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model
from toolkit.providers import registry
from toolkit.providers.placement import placement_rules
from toolkit.quantizer.lowering import onnxruntime_, weights
from toolkit.quantizer.lowering.gemm import split_gemms
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.preparing import prepare
from toolkit.tensors import Array
from toolkit.verifier.metrics import compare_arrays

CPU, OPENVINO = placement_rules("cpu.toml"), placement_rules("openvino.toml")
assert CPU.dynamic is not None and CPU.weight_only is not None and OPENVINO.weight_only is not None
DYNAMIC, NBITS, STANDARD = CPU.dynamic, CPU.weight_only, OPENVINO.weight_only
LEAST_DB = {8: 35, 4: 15}


def saved(path: Path, lowered: Lowered) -> Path:
    output = path.with_suffix(f".{lowered.method.replace(' ', '-')}.onnx")
    save_model(lowered.model, output)
    return output


def model(path: Path, opset: int = 13) -> object:
    return prepare(load_model(path), opset=opset, where=path).model


def snr(path: Path, other: Path, feeds: dict[str, Array], engine: str) -> float:
    wanted, got = registry.provider("cpu").open(path)(feeds), registry.provider(engine).open(other)(feeds)
    return min(compare_arrays(wanted[name], got[name]).snr_db for name in wanted)


@pytest.mark.parametrize("engine", ["cpu", "openvino"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("form", ["MatMulNBits", "qdq"])
def test_weights_are_narrow_and_the_numbers_hold(
    form: str, bits: int, engine: str, block: Path, sequences: list[dict[str, Array]]
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    if form == "qdq":
        lowered = weights.lower_weights(model(block, weights.OPSETS[bits]), STANDARD, bits)
    else:
        lowered = onnxruntime_.lower_to_nbits(model(block), NBITS, bits)
    assert lowered.quantized == {"MatMul": 5}
    assert [item.operator for item in lowered.left] == ["MatMul", "MatMul"]
    output = saved(block, lowered)
    assert facts(output).precision == f"int{bits}"
    assert snr(block, output, sequences[0], engine) > LEAST_DB[bits]


def test_dynamic_int8_keeps_attention_in_float(block: Path, sequences: list[dict[str, Array]]) -> None:
    lowered = onnxruntime_.lower_dynamic(model(block), DYNAMIC)
    output = saved(block, lowered)
    assert lowered.quantized == {"MatMul": 5}
    assert len(lowered.left) == 2
    assert facts(output).operators["MatMulInteger"] == 5
    assert snr(block, output, sequences[0], "cpu") > 30


def test_dynamic_int8_takes_an_lstm(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[T,N,16] x) => (float[T,1,N,32] y) {'
        " y = LSTM<hidden_size=32>(x, w, r) }",
        {"w": (1, 128, 16), "r": (1, 128, 32)},
    )
    lowered = onnxruntime_.lower_dynamic(model(path), DYNAMIC)
    assert lowered.quantized == {"LSTM": 1}
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 2, 16)).astype(np.float32)}
    assert snr(path, saved(path, lowered), feeds, "cpu") > 30


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_a_gemm_becomes_matmul_and_add(transposed: int, bias: str, write: Callable[..., Path]) -> None:
    path = write(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,6] x) => (float[N,3] y) {{'
        f" y = Gemm<transB={transposed}>(x, w{bias}) }}",
        {"w": (3, 6) if transposed else (6, 3), "b": (3,)},
    )
    changed = load_model(path)
    assert split_gemms(changed) == 1
    save_model(changed, path.with_suffix(".split.onnx"))
    assert "Gemm" not in facts(path.with_suffix(".split.onnx")).operators
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)}
    assert snr(path, path.with_suffix(".split.onnx"), feeds, "cpu") > 120


def test_a_gemm_that_scales_is_left(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,6] x) => (float[N,3] y) { y = Gemm<alpha=0.5>(x, w) }',
        {"w": (6, 3)},
    )
    assert split_gemms(load_model(path)) == 0


@pytest.mark.parametrize("rows", [32, 48, 50])
def test_blocks(rows: int) -> None:
    weight = np.random.default_rng(0).standard_normal((rows, 5)).astype(np.float32)
    block_size = 16 if rows % 16 == 0 else rows
    stored, steps = weights.in_blocks(weight, block_size, 8)
    assert steps.shape == (rows // block_size, 5)
    restored = stored.astype(np.float32) * np.repeat(steps, block_size, axis=0)
    assert np.abs(restored - weight).max() <= steps.max() / 2 * 1.0001


def test_the_library_does_not_set_up_logging_for_us(block: Path) -> None:
    before = logging.getLogger().level, list(logging.getLogger().handlers), logging.root.manager.disable
    onnxruntime_.lower_to_nbits(model(block), NBITS, 8)
    onnxruntime_.lower_dynamic(model(block), DYNAMIC)
    assert (logging.getLogger().level, list(logging.getLogger().handlers), logging.root.manager.disable) == before


def test_the_same_twice_is_the_same_bytes(block: Path) -> None:
    for lower in (
        lambda: onnxruntime_.lower_dynamic(model(block), DYNAMIC),
        lambda: onnxruntime_.lower_to_nbits(model(block), NBITS, 4),
        lambda: weights.lower_weights(model(block, 21), STANDARD, 4),
    ):
        assert saved(block, lower()).read_bytes() == saved(block, lower()).read_bytes()
