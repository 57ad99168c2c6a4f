"""Whether a parsed file is a model that can be worked on: structure, tensor sizes, external data. No weight is read."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.checker import ValidationError

from toolkit.errors import FileProblem, InvalidModel, one_line
from toolkit.graph.walk import every_tensor

# Fields of a TensorProto other than raw_data that hold elements, and how many entries one element takes.
# Source: onnx/onnx.proto, TensorProto, comments on the fields.
_TYPED_FIELDS = {
    ir.DataType.FLOAT: ("float_data", 1), ir.DataType.COMPLEX64: ("float_data", 2),
    ir.DataType.DOUBLE: ("double_data", 1), ir.DataType.COMPLEX128: ("double_data", 2),
    ir.DataType.INT64: ("int64_data", 1), ir.DataType.UINT32: ("uint64_data", 1),
    ir.DataType.UINT64: ("uint64_data", 1),
}  # fmt: skip


def check_proto(proto: onnx.ModelProto) -> None:
    """Run onnx.checker on everything but the values of the main graph's weights, so that large files cost no more.

    Raises:
        InvalidModel: the checker's finding, as ``got``.
    """
    if proto.graph.sparse_initializer:
        names = ", ".join(tensor.values.name for tensor in proto.graph.sparse_initializer[:3])
        raise InvalidModel("sparse initializers are not supported", got=names, next_step="export with dense weights")
    try:
        onnx.checker.check_model(_without_weights(proto))
    except (ValidationError, UnicodeDecodeError, ValueError) as exc:
        raise InvalidModel("not a valid ONNX model", got=_first_sentence(exc)) from exc


def _first_sentence(exc: Exception) -> str:
    return one_line(str(exc).split("==> Context:")[0], 240)


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose initializers are declared as inputs instead; checking it never copies gigabytes."""
    copy = onnx.ModelProto()
    _copy_fields(proto, copy, "graph")
    _copy_fields(proto.graph, copy.graph, "initializer")
    declared = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.name not in declared:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.shape.SetInParent()  # the checker wants a rank; engines do not
    return copy


def _copy_fields(source: onnx.ModelProto | onnx.GraphProto, copy: onnx.ModelProto | onnx.GraphProto, but: str) -> None:
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(value)
        elif field.message_type is not None:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)


def check_model(model: ir.Model) -> None:
    """Run onnx.checker on a model in memory.

    Raises:
        InvalidModel: the checker's finding.
    """
    check_proto(skeleton(model))


def skeleton(model: ir.Model, keep_bytes: int = 0) -> onnx.ModelProto:
    """A copy of ``model`` as protobuf, with its main graph's weights above ``keep_bytes`` declared as inputs."""
    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        if value.const_value is not None and value.const_value.nbytes > keep_bytes:
            value.type = value.type or ir.TensorType(value.const_value.dtype)
            value.shape = value.shape or ir.Shape(value.const_value.shape)
            value.const_value = None
            copy.graph.initializers.pop(name)
            if not value.is_graph_input():
                copy.graph.inputs.append(value)
    return ir.serde.serialize_model(copy)


def check_tensors(model: ir.Model) -> None:
    """Check that every tensor has as many bytes as its type and shape ask for.

    Raises:
        InvalidModel: one has not.
    """
    for tensor in every_tensor(model):
        if any(not isinstance(dim, int) or dim < 0 for dim in tensor.shape):
            raise InvalidModel(f"tensor '{tensor.name}' has an impossible shape", got=list(tensor.shape))
        proto = tensor.raw if isinstance(tensor, ir.serde.TensorProtoTensor) else None
        if proto is not None:
            _check_size(tensor, proto)


def _check_size(tensor: ir.TensorProtocol, proto: onnx.TensorProto) -> None:
    if proto.HasField("raw_data"):
        found, wanted, unit = len(proto.raw_data), tensor.nbytes, "bytes"
    else:
        field, per_element = _TYPED_FIELDS.get(tensor.dtype, ("int32_data", 1))
        found, wanted, unit = len(getattr(proto, field)), tensor.size * per_element, "elements"
        if tensor.dtype.bitwidth < 8:
            wanted = tensor.nbytes
    if found != wanted:
        raise InvalidModel(
            f"tensor '{tensor.name}' does not have the size of its shape {list(tensor.shape)}",
            got=f"{found} {unit}",
            expected=f"{wanted}",
        )


def check_external(model: ir.Model, path: Path) -> None:
    """Point external tensors at ``path``'s folder and check that each lies inside it, exists and is long enough.

    Raises:
        FileProblem: a data file is missing.
        InvalidModel: a path that leaves the folder, or a range that does not fit its file or its tensor.
    """
    sizes: dict[str, int] = {}
    for tensor in every_tensor(model):
        if isinstance(tensor, ir.ExternalTensor):
            location = str(tensor.location)
            if location not in sizes:
                sizes[location] = _external_size(location, path)
            _check_range(tensor, sizes[location], path)
            tensor.base_dir = path.parent if str(path.parent) else Path()


def _external_size(location: str, path: Path) -> int:
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise InvalidModel(
            "external data leaves the model's folder", where=path, got=repr(location), expected="a path inside it"
        )
    file = path.parent / relative
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise InvalidModel(
            "external data leaves the model's folder through a link", where=path, got=f"{location} -> {file.resolve()}",
            next_step="copy the model and its data into one folder",
        )  # fmt: skip
    if not file.is_file():
        what = "the model's external data is a directory" if file.is_dir() else "the model's external data is missing"
        raise FileProblem(what, where=path, got=location, next_step=f"put {location} beside {path.name}")
    if file.stat().st_nlink > 1:  # onnx_ir would refuse it when it is read, and say less
        raise InvalidModel(
            "external data has several hard links, so it may be another file in disguise", where=path, got=location,
            next_step=f"cp {location} to a file of its own",
        )  # fmt: skip
    return file.stat().st_size


def _check_range(tensor: ir.ExternalTensor, available: int, path: Path) -> None:
    offset, length = tensor.offset or 0, tensor.nbytes if tensor.length is None else tensor.length
    if offset < 0 or length != tensor.nbytes or offset + length > available:
        raise InvalidModel(
            f"external data of tensor '{tensor.name}' does not fit",
            where=path,
            got=f"{length} bytes at {offset} in {tensor.location} of {available} bytes",
            expected=f"{tensor.nbytes} bytes",
        )
