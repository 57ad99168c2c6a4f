"""Small models for tests, written as text, and two independent ways to run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

Arrays = Mapping[str, Any]


def proto(
    text: str, *, opset: int = 17, ir_version: int = 8, weights: Arrays | None = None, imports: str = ""
) -> onnx.ModelProto:
    """The model with the graph ``text``; ``weights`` become initializers, and inputs too where the IR version asks."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{imports}]>'
    model = onnx.parser.parse_model(f"{header}\n{text}")
    for name, array in (weights or {}).items():
        tensor = onnx.numpy_helper.from_array(np.asarray(array), name)
        model.graph.initializer.append(tensor)
        if ir_version < 4:
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    return model


def build(text: str, **options: Any) -> ir.Model:
    return ir.serde.deserialize_model(proto(text, **options))


def write(path: Path, text: str, **options: Any) -> Path:
    onnx.save(proto(text, **options), path)
    return path


def run(model: ir.Model | onnx.ModelProto, **feeds: Any) -> list[Any]:
    """Outputs by ONNX Runtime, without its own optimizations."""
    message = ir.serde.serialize_model(model) if isinstance(model, ir.Model) else model
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(message.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def reference(model: ir.Model | onnx.ModelProto, **feeds: Any) -> list[Any]:
    """Outputs by onnx's own implementation in numpy."""
    message = ir.serde.serialize_model(model) if isinstance(model, ir.Model) else model
    return list(ReferenceEvaluator(message).run(None, feeds))


def check(model: ir.Model) -> None:
    """onnx.checker with shape inference."""
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)


def types(model: ir.Model) -> list[str]:
    """Operators of the main graph, in order."""
    return [node.op_type for node in model.graph]


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
