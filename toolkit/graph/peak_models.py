"""Models made to run as fast as an engine and its machine can: products, convolutions, and passes over large arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolkit.tensors import Array

Kind = Literal["float32", "float16", "bfloat16", "int8"]
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
_OPSET, _IR_VERSION = 17, 8
_SCALE, _ZERO = 0.05, 128


def write_product(path: Path, kind: Kind, rows: int, widths: tuple[int, ...], seed: int = 0) -> None:
    """Write a chain of matrix products, ``(rows, widths[0])`` times ``(widths[0], widths[1])`` and so on.

    Weights are constant, as in a model. In int8, activations are unsigned with a zero point and weights signed, each
    product between its Q and DQ nodes, which is what engines know best; 16-bit kinds are cast at both ends.
    """
    weights = _weights(seed, [(rows, columns) for rows, columns in pairwise(widths)], 0)
    _write_chain(path, kind, "MatMul", weights, [rows, widths[0]], [rows, widths[-1]])


def write_convolution(path: Path, kind: Kind, size: int, channels: tuple[int, ...], seed: int = 0) -> None:
    """Write a chain of 3 × 3 convolutions of one image, ``size`` high and wide, without padding; otherwise the same."""
    weights = _weights(seed, [(outputs, inputs, 3, 3) for inputs, outputs in pairwise(channels)], 1)
    left = size - 2 * len(weights)
    _write_chain(path, kind, "Conv", weights, [1, channels[0], size, size], [1, channels[-1], left, left])


def _weights(seed: int, shapes: Sequence[tuple[int, ...]], output: int) -> list[Array]:
    """Numbers that keep a chain of products within sight of 1; all axes but ``output`` or the last are summed over."""
    rng = np.random.default_rng(seed)
    summed = [np.prod(shape[1:]) if output else shape[0] for shape in shapes]
    return [(rng.standard_normal(shape) / n**0.5).astype(np.float32) for shape, n in zip(shapes, summed, strict=True)]


def _write_chain(
    path: Path, kind: Kind, operator: str, weights: Sequence[Array], entry: list[int], end: list[int]
) -> None:
    nodes, constants, edge = (_quantized if kind == "int8" else _floating)(kind, operator, weights)
    x, y = (helper.make_tensor_value_info(name, edge, shape) for name, shape in (("x", entry), ("y", end)))
    _write(path, nodes, [x], [y], constants)


def _floating(
    kind: str, operator: str, weights: Sequence[Array]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], int]:
    dtype = _TYPES[kind]
    names = ["x16" if dtype != TensorProto.FLOAT else "x", *(f"h{i}" for i in range(1, len(weights) + 1))]
    nodes, constants = [], []
    for index, weight in enumerate(weights):
        constants.append(helper.make_tensor(f"w{index}", dtype, weight.shape, weight.reshape(-1)))
        nodes.append(helper.make_node(operator, [names[index], f"w{index}"], [names[index + 1]], f"product{index}"))
    if dtype != TensorProto.FLOAT:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["x16"], "enter", to=dtype))
        nodes.append(helper.make_node("Cast", [names[-1]], ["y"], "leave", to=TensorProto.FLOAT))
    else:
        nodes[-1].output[0] = "y"
    return nodes, constants, TensorProto.FLOAT


def _quantized(
    kind: str, operator: str, weights: Sequence[Array]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], int]:
    scale, zero = np.float32(_SCALE), np.uint8(_ZERO)
    constants = [numpy_helper.from_array(np.asarray(scale), "s"), numpy_helper.from_array(np.asarray(zero), "z")]
    nodes = []
    for index, weight in enumerate(weights):
        source = "x" if index == 0 else f"q{index}"
        target = "y" if index == len(weights) - 1 else f"q{index + 1}"
        step = np.float32(np.abs(weight).max() / 127)
        constants += [
            numpy_helper.from_array(np.round(weight / step).astype(np.int8), f"w{index}"),
            numpy_helper.from_array(np.asarray(step), f"ws{index}"),
            numpy_helper.from_array(np.asarray(np.int8(0)), f"wz{index}"),
        ]
        nodes += [
            helper.make_node("DequantizeLinear", [source, "s", "z"], [f"a{index}"], f"enter{index}"),
            helper.make_node(
                "DequantizeLinear", [f"w{index}", f"ws{index}", f"wz{index}"], [f"b{index}"], f"weight{index}"
            ),
            helper.make_node(operator, [f"a{index}", f"b{index}"], [f"c{index}"], f"product{index}"),
            helper.make_node("QuantizeLinear", [f"c{index}", "s", "z"], [target], f"leave{index}"),
        ]
    return nodes, constants, TensorProto.UINT8


def write_passes(path: Path, shapes: Sequence[tuple[int, int]]) -> None:
    """Write passes over float32 arrays of these shapes, which are made in the graph, one after the other.

    Node ``copy:INDEX`` reads and writes every element, ``read:INDEX`` reads what that wrote.
    """
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])
    nodes, constants, last = [], [], "x"
    for index, (rows, columns) in enumerate(shapes):
        constants.append(numpy_helper.from_array(np.array([rows, columns], np.int64), f"shape{index}"))
        stages = ("made", "softened", "copied", "reduced", "last")
        made, softened, copied, reduced, end = (f"{stage}{index}" for stage in stages)
        nodes += [
            helper.make_node("Expand", [last, f"shape{index}"], [made], f"make:{index}"),
            # Engines move a Relu to before the Expand, fuse it with most other things, but not with this.
            helper.make_node("Softmax", [made], [softened], f"soften:{index}", axis=1),
            helper.make_node("Relu", [softened], [copied], f"copy:{index}"),
            helper.make_node("ReduceMax", [copied], [reduced], f"read:{index}", axes=[1], keepdims=1),
            helper.make_node("ReduceMax", [reduced], [end], f"end:{index}", axes=[0], keepdims=1),
        ]
        last = end
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 1])
    _write(path, nodes, [x], [y], constants)


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> None:
    graph = helper.make_graph(nodes, "peak", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    path.write_bytes(model.SerializeToString())
