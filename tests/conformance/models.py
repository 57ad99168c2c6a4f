"""Small models that every provider has to get right, each as an ONNX graph, as torch code, and as numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

from toolkit.tensors import Array, Feeds, TensorSpec

WEIGHT = np.array([[1, -2, 0.5], [0, 3, 1], [2, 0, -1], [-0.5, 1, 4]], np.float32)
BIAS = np.array([0.25, -1, 2], np.float32)


@dataclass(frozen=True)
class Case:
    """One model.

    Args:
        graph: ONNX's text form.
        inputs, outputs: what the graph declares.
        reference: the answer, in numpy.
        forward: the same computation on torch tensors.
        weights: initializers by name.
    """

    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Callable[[Feeds], Mapping[str, Array]]
    forward: Callable[..., Any]
    weights: Mapping[str, Array] = field(default_factory=dict)

    def write(self, folder: Path, name: str = "model.onnx", opset: int = 17) -> Path:
        text = f'<ir_version: 8, opset_import: ["" : {opset}]>\n{self.graph}'
        model = onnx.parser.parse_model(text)
        model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in self.weights.items())
        onnx.checker.check_model(model, full_check=True)
        path = folder / name
        onnx.save(model, path)
        return path


LINEAR = Case(
    "linear (float[batch,4] x) => (float[batch,3] y) { product = MatMul(x, W)  y = Add(product, b) }",
    (TensorSpec("x", "float32", ("batch", 4)),),
    (TensorSpec("y", "float32", ("batch", 3)),),
    lambda feeds: {"y": feeds["x"] @ WEIGHT + BIAS},
    lambda x: x @ _torch(WEIGHT) + _torch(BIAS),
    {"W": WEIGHT, "b": BIAS},
)
PAIR = Case(
    "pair (float[rows,cols] a, float[rows,cols] b) => (float[rows,cols] total, float[rows,cols] gap)"
    " { total = Add(a, b)  gap = Sub(a, b) }",
    (TensorSpec("a", "float32", ("rows", "cols")), TensorSpec("b", "float32", ("rows", "cols"))),
    (TensorSpec("total", "float32", ("rows", "cols")), TensorSpec("gap", "float32", ("rows", "cols"))),
    lambda feeds: {"total": feeds["a"] + feeds["b"], "gap": feeds["a"] - feeds["b"]},
    lambda a, b: (a + b, a - b),
)
SCALAR = Case(
    "scalar (float x) => (float y) { y = Mul(x, two) }",
    (TensorSpec("x", "float32", ()),),
    (TensorSpec("y", "float32", ()),),
    lambda feeds: {"y": feeds["x"] * np.float32(2)},
    lambda x: x * 2,
    {"two": np.array(2, np.float32)},
)
THROUGH = Case(
    "through (float[n] x) => (float[n] y, float[n] z) { y = Identity(x)  z = Mul(x, two) }",
    (TensorSpec("x", "float32", ("n",)),),
    (TensorSpec("y", "float32", ("n",)), TensorSpec("z", "float32", ("n",))),
    lambda feeds: {"y": feeds["x"], "z": feeds["x"] * np.float32(2)},
    lambda x: (x, x * 2),
    {"two": np.array(2, np.float32)},
)
# ONNX's text form has names of its own for three types.
_TEXT_TYPES = {"float32": "float", "float64": "double", "bool": "bool"}
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")


def twice(dtype: str) -> Case:
    """A model that puts its input behind itself: exact in every type."""
    text = _TEXT_TYPES.get(dtype, dtype)
    return Case(
        f"twice ({text}[n,2] x) => ({text}[m,2] y) {{ y = Concat<axis = 0>(x, x) }}",
        (TensorSpec("x", dtype, ("n", 2)),),
        (TensorSpec("y", dtype, ("m", 2)),),
        lambda feeds: {"y": np.concatenate([feeds["x"], feeds["x"]])},
        lambda x: __import__("torch").cat([x, x]),
    )


def _torch(array: Array) -> Any:
    import torch

    return torch.from_numpy(array)


def write_quantized(folder: Path) -> Path:
    """A matrix product between Q/DQ pairs, with 64 inputs and 64 outputs, as a quantizer writes it."""
    generator = np.random.default_rng(0)
    weights = {
        "W": generator.integers(-127, 128, (64, 64)).astype(np.int8),
        "w_scale": np.array(0.01, np.float32),
        "w_zero": np.array(0, np.int8),
        "x_scale": np.array(0.05, np.float32),
        "x_zero": np.array(128, np.uint8),
        "y_scale": np.array(0.5, np.float32),
        "y_zero": np.array(128, np.uint8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_int"], "x_quantize"),
        helper.make_node("DequantizeLinear", ["x_int", "x_scale", "x_zero"], ["x_float"], "x_dequantize"),
        helper.make_node("DequantizeLinear", ["W", "w_scale", "w_zero"], ["w_float"], "w_dequantize"),
        helper.make_node("MatMul", ["x_float", "w_float"], ["product"], "product"),
        helper.make_node("QuantizeLinear", ["product", "y_scale", "y_zero"], ["y_int"], "y_quantize"),
        helper.make_node("DequantizeLinear", ["y_int", "y_scale", "y_zero"], ["y"], "y_dequantize"),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "quantized.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def quantized_reference(x: Array) -> Array:
    """What :func:`write_quantized` computes, within one step of its output's scale."""
    weight = np.random.default_rng(0).integers(-127, 128, (64, 64)).astype(np.float32) * np.float32(0.01)
    steps = np.clip(np.rint(x / np.float32(0.05)) + 128, 0, 255) - 128
    product = (steps * np.float32(0.05)) @ weight
    return (np.clip(np.rint(product / np.float32(0.5)) + 128, 0, 255) - 128) * np.float32(0.5)


def write_compressed(folder: Path) -> tuple[Path, Array]:
    """A float product with int8 weights, in the standard form; also the weights as floats."""
    weight = np.random.default_rng(0).integers(-127, 128, (512, 512)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["W", "scale"], ["w_float"], "dequantize", axis=1),
        helper.make_node("MatMul", ["x", "w_float"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes,
        "compressed",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 512])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 512])],
        [numpy_helper.from_array(weight, "W"), numpy_helper.from_array(np.full(512, 0.01, np.float32), "scale")],
    )
    path = folder / "compressed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path, weight * np.float32(0.01)


def write_unsupported(folder: Path) -> Path:
    """A graph with an operator that no engine has."""
    node = helper.make_node("Frobnicate", ["x"], ["y"], "the_odd_one", domain="com.example.nobody")
    graph = helper.make_graph(
        [node],
        "unsupported",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example.nobody", 1)]
    path = folder / "unsupported.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def write_external(folder: Path) -> Path:
    """LINEAR with its weights in ``weights.bin`` beside it."""
    model = onnx.load(LINEAR.write(folder, "external.onnx"))
    path = folder / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path
