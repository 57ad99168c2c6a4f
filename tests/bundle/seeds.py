"""Seed bundles for fuzzing: small, and between them every part that a bundle can have."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolkit.bundle.archive import pack
from toolkit.bundle.manifest import Fingerprint, Manifest, Measurement, Provenance, Variant
from toolkit.bundle.writer import VariantSource, create_bundle
from toolkit.preprocess import InputSteps, Layout, Normalize, Preprocessing
from toolkit.runtime.preparing import prepare_bundle
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

CPU = Target(name="cpu", provider="cpu", threads=1)
OPENVINO = Target(name="openvino", provider="openvino", threads=1)


def large_model() -> onnx.ModelProto:
    """A linear layer whose weights are large enough to lie outside the file."""
    weight = np.random.default_rng(0).standard_normal((160, 128)).astype(np.float32)
    return _model(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["batch", 128])],
        [("y", TensorProto.FLOAT, ["batch", 160])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones(160, np.float32), "b")],
    )


def image_model() -> onnx.ModelProto:
    """A convolution over a small picture, with pads, strides and a constant of each kind that nodes hold."""
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [0, -1])
    return _model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3]),
            helper.make_node("Constant", [], ["shape"], value=shape),
            helper.make_node("Reshape", ["c", "shape"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(weight, "w")],
    )


def branching_model() -> onnx.ModelProto:
    """A condition with two subgraphs, a loop, and a function of the model's own."""
    then = helper.make_graph([helper.make_node("Add", ["x", "one"], ["t"])], "then", [], [_value("t")])
    other = helper.make_graph([helper.make_node("own.Twice", ["x"], ["e"], domain="own")], "else", [], [_value("e")])
    other.node[0].op_type = "Twice"
    body = helper.make_graph(
        [helper.make_node("Identity", ["again"], ["go"]), helper.make_node("Mul", ["v", "one"], ["n"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            _value("v"),
        ],
        [helper.make_tensor_value_info("go", TensorProto.BOOL, []), _value("n")],
    )
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    return _model(
        [
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Greater", ["s", "zero"], ["c"]),
            helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other),
            helper.make_node("Loop", ["trips", "c", "z"], ["y"], body=body),
        ],
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("y", TensorProto.FLOAT, ["batch", 4])],
        [
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("trips", TensorProto.INT64, [], [3]),
        ],
        [twice],
    )


def quantized_model() -> onnx.ModelProto:
    """Q/DQ around a product, with weights in int8."""
    weight = np.random.default_rng(2).integers(-127, 127, (16, 8), dtype=np.int8)
    return _model(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=1),
            helper.make_node("MatMul", ["d", "wd"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["batch", 16])],
        [("y", TensorProto.FLOAT, ["batch", 8])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.full(8, 0.02, np.float32), "ws"),
            numpy_helper.from_array(np.array(0.05, np.float32), "s"),
            numpy_helper.from_array(np.array(128, np.uint8), "z"),
        ],
    )


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])


def _model(nodes: list, inputs: list, outputs: list, tensors: list, functions: list | None = None) -> onnx.ModelProto:  # type: ignore[type-arg]
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions or [], ir_version=8)
    onnx.checker.check_model(model)
    return model


MODELS = {"large": large_model, "image": image_model, "branching": branching_model, "quantized": quantized_model}


def make_bundle(name: str, folder: Path, *, prepared: bool = False) -> Path:
    """A bundle folder of one of :data:`MODELS`, with one variant for two targets and evidence of every kind."""
    model = folder / f"{name}.onnx"
    proto = MODELS[name]()
    onnx.save(proto, model)
    target = msgspec.structs.replace(CPU, engine_options={"session.intra_op.allow_spinning": True})
    measurement = Measurement("cpu", "cpu", 1e4, (9e3, 1.1e4), 100, "x", Fingerprint("cpu", 2, "CPU", "1", "Linux"))
    variant = Variant(
        name="own",
        model=model.name,
        precision="float32",
        targets=(target, OPENVINO),
        files={},
        parity={"max_ulp": 4},
        accuracy={"top1": 0.9},
        measurements=(measurement,),
    )
    specs = [
        tuple(TensorSpec(item.name, "float32", _dims(item)) for item in items)
        for items in (proto.graph.input, proto.graph.output)
    ]
    steps = Preprocessing((InputSteps("x", (Layout("NHWC", "NCHW"), Normalize((0.5,), (0.5,)))),))
    manifest = Manifest(
        name=name,
        inputs=specs[0],
        outputs=specs[1],
        labels=("a", "b"),
        preprocessing=steps if name == "image" else None,
        provenance=Provenance(source="zoo:seed", versions={"torch": "2"}, calibration={"samples": 8}),
        licence="Apache-2.0",
    )
    path = folder / f"{name}.bundle"
    create_bundle(path, manifest, [VariantSource(variant, model)])
    if prepared:
        prepare_bundle(path, ["cpu"])
    return path


def _dims(item: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim)


def seed_bundles() -> dict[str, bytes]:
    """Packed bundles by name: one of each model, and one with a prepared form."""
    found = {}
    folder = Path(tempfile.mkdtemp())
    try:
        for name in MODELS:
            path = make_bundle(name, folder, prepared=name == "large")
            pack(path, folder / f"{name}.zip")
            found[name] = (folder / f"{name}.zip").read_bytes()
    finally:
        shutil.rmtree(folder)
    return found
