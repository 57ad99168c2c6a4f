"""What a model is, told from its graph alone: no weight is read, no engine is asked."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import msgspec
import onnx_ir as ir

from toolkit.errors import InvalidModel
from toolkit.graph.files import load_model, weight_bytes
from toolkit.graph.precision import headline
from toolkit.graph.walk import every_node, every_tensor
from toolkit.tensors import Dim, TensorSpec

VALUES_KEY = "toolkit.values"
# ONNX Runtime and OpenVINO promise opsets from 7 on; source: onnxruntime docs/Versioning.md.
OLDEST_OPSET = 7
SUGGESTED_OPSET = 17

_DTYPE_NAMES = {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}
# Names that exporters give to dims they know nothing about.
_UNKNOWN_DIM = re.compile(r"^(unk__\d+|\?|)$")
# Of these a model has some for shapes and indices, which nobody counts as parameters.
_NOT_PARAMETERS = {ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING}


class GraphFacts(msgspec.Struct, frozen=True):
    """Facts about a model file.

    Attributes:
        opset: version of the default operator set; 0 for a model that uses none of it.
        domains: version of every operator set that is imported; the default one is called "ai.onnx".
        precision: headline precision of the file, see :func:`toolkit.graph.precision.headline`.
        parameters: elements of all constant tensors but indices, shapes and text.
        size_bytes: of the files, external data included; of the weights for a model that is in memory.
        operators: nodes by type, subgraphs and function bodies included; types of other domains as "domain.Type".
        dynamic_dims: names of the inputs' dims that have no fixed size.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    ir_version: int
    domains: dict[str, int]
    precision: str
    quantized: bool
    parameters: int
    size_bytes: int
    node_count: int
    operators: dict[str, int]
    dynamic_dims: tuple[str, ...]
    metadata: dict[str, str]


def facts(model: ir.Model | str | os.PathLike[str]) -> GraphFacts:
    """Facts about a model, or the file it is in.

    Raises:
        FileProblem, InvalidModel: the file cannot be read as a model.
    """
    if isinstance(model, ir.Model):
        return _facts(model, weight_bytes(model))
    return _facts(load_model(model), Path(model).stat().st_size, Path(model))


def _facts(model: ir.Model, size_bytes: int, path: Path | None = None) -> GraphFacts:
    inputs = input_specs(model)
    operators = Counter(operator_name(node) for node in every_node(model))
    precision, quantized = headline(model)
    return GraphFacts(
        inputs=inputs,
        outputs=tuple(_spec(value) for value in model.graph.outputs),
        opset=model.opset_imports.get("", 0),
        ir_version=model.ir_version,
        domains={domain or "ai.onnx": version for domain, version in sorted(model.opset_imports.items())},
        precision=precision,
        quantized=quantized,
        parameters=sum(tensor.size for tensor in every_tensor(model) if tensor.dtype not in _NOT_PARAMETERS),
        size_bytes=size_bytes + (_external_bytes(model) if path else 0),
        node_count=operators.total(),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        dynamic_dims=tuple(dict.fromkeys(dim for spec in inputs for dim in spec.dynamic_dims)),
        metadata=dict(model.metadata_props),
    )


def require_runnable(found: GraphFacts, where: object) -> None:
    """Check that engines run models of this opset at all.

    Raises:
        InvalidModel: they do not; the line names the command that upgrades the file.
    """
    if "ai.onnx" in found.domains and found.opset < OLDEST_OPSET:
        raise InvalidModel(
            "the opset is older than engines run",
            where=where,
            got=found.opset,
            expected=f"at least {OLDEST_OPSET}",
            next_step=f"toolkit optimize {where} -o NEW.onnx --opset {SUGGESTED_OPSET}",
        )


def true_inputs(model: ir.Model) -> list[ir.Value]:
    """Inputs that have to be fed: files of IR version 3 list their weights as inputs too."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def input_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """What has to be fed, with the bounds that the metadata records."""
    values = _values(model)
    return tuple(_spec(value, values.get(value.name or "")) for value in true_inputs(model))


def operator_name(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _spec(value: ir.Value, values: tuple[float, float] | None = None) -> TensorSpec:
    name = value.name or ""
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return TensorSpec(name, type(value.type).__name__.removesuffix("Type").lower(), None)
    shape = None if value.shape is None else tuple(_dim(dim, name, axis) for axis, dim in enumerate(value.shape))
    return TensorSpec(name, dtype_name(value.dtype), shape, values)


def _dim(dim: int | ir.SymbolicDim, tensor: str, axis: int) -> Dim:
    return unknown_dim(tensor, axis) if is_unknown(dim) else dim if isinstance(dim, int) else str(dim.value)


def is_unknown(dim: int | ir.SymbolicDim) -> bool:
    """Whether a dim has neither a size nor a name that means anything."""
    if isinstance(dim, int):
        return dim < 0
    return dim.value is None or _UNKNOWN_DIM.match(dim.value) is not None


def unknown_dim(tensor: str, axis: int) -> str:
    """The name under which an unknown dim goes; the same as in the ONNX Runtime provider."""
    return f"{tensor}_dim{axis}"


def dtype_name(dtype: ir.DataType | None) -> str:
    """The toolkit's name of an ONNX element type: ``float32`` for FLOAT."""
    if dtype is None:
        return "unknown"
    return _DTYPE_NAMES.get(dtype, str(dtype.name).lower())


def _values(model: ir.Model) -> dict[str, tuple[float, float]]:
    text = model.metadata_props.get(VALUES_KEY)
    if text is None:
        return {}
    try:
        return msgspec.convert(json.loads(text), dict[str, tuple[float, float]])
    except (json.JSONDecodeError, msgspec.ValidationError) as exc:
        raise InvalidModel("metadata cannot be read", where=VALUES_KEY, got=text[:80]) from exc


def _external_bytes(model: ir.Model) -> int:
    files = {Path(tensor.path) for tensor in every_tensor(model) if isinstance(tensor, ir.ExternalTensor)}
    return sum(file.stat().st_size for file in files)
