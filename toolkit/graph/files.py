"""ONNX files in and out: whatever is wrong with one is a single clear line, and weights are read when they are used."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from toolkit.errors import FileProblem, InvalidModel, one_line
from toolkit.files import atomic_folder, existing_file
from toolkit.graph.validity import check_external, check_proto, check_tensors
from toolkit.graph.walk import every_graph, every_tensor, tensor_attributes

# protobuf messages end at 2 GiB; what else is in the file besides weights fits in the difference.
SINGLE_FILE_BYTES = 1_900_000_000
# Tensors below this stay in the graph file: engines read shapes and scales from there.
_INLINE_BYTES = 1024
_REMEDY = "export it again, or check that it copied whole"


def load_model(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX file; external data stays on disk, mapped when it is first used.

    Raises:
        FileProblem: the file or its external data is missing, a directory, empty or unreadable.
        InvalidModel: it is no ONNX model, a damaged one, or external data that leaves its folder or does not fit.
    """
    path = existing_file(path, "model file")
    proto = _parse(path)
    try:
        check_proto(proto)
        model = ir.serde.deserialize_model(proto)
        check_tensors(model)
    except InvalidModel as exc:
        raise InvalidModel(exc.what, where=path, got=exc.got, expected=exc.expected, next_step=exc.next_step) from exc
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError, AttributeError) as exc:
        raise InvalidModel("not a valid ONNX model", where=path, got=_root_cause(exc), next_step=_REMEDY) from exc
    check_external(model, path)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise FileProblem("the model file cannot be read", where=path, got=exc.strerror) from exc
    if text := _as_text(content[:512]):
        raise InvalidModel("this is a text file, not an ONNX model", where=path, got=repr(text))
    try:
        proto = onnx.ModelProto.FromString(content)
    except (DecodeError, UnicodeDecodeError) as exc:
        raise InvalidModel(
            "not an ONNX model, or a damaged one", where=path, got=_parser_text(exc), next_step=_REMEDY
        ) from exc
    if not proto.ir_version or not proto.HasField("graph") or not proto.graph.output:
        raise InvalidModel(
            "the file holds no ONNX model", where=path, got="no IR version, graph or output", next_step=_REMEDY
        )
    return proto


def _parser_text(exc: Exception) -> str:
    """protobuf's finding without its preamble: ``Wire format was corrupt``."""
    return one_line(str(exc).rsplit("'onnx.ModelProto': ", 1)[-1], 120)


def _as_text(start: bytes) -> str:
    """The first line of a file that begins as text; empty when it does not."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    lines = text.strip().splitlines()
    return lines[0][:60] if lines and all(char.isprintable() or char.isspace() for char in text) else ""


def _root_cause(exc: BaseException) -> str:
    """What onnx_ir found at the bottom: the errors around it only say which message it was reading."""
    while (deeper := exc.__cause__ or exc.__context__) is not None:
        exc = deeper
    return one_line(exc, 200)


def save_model(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write ``model`` as one file, or from 1.9 GB on with its weights in ``NAME.onnx.data`` beside it.

    The file appears whole or not at all, and the same model gives the same bytes twice. ``model`` is not changed.

    Raises:
        FileProblem: the output cannot be written.
        InvalidModel: the model is not valid ONNX.
    """
    path = Path(path)
    try:
        copy = model.clone()
    except RuntimeError as exc:  # onnx_ir's cloner meets a value that nothing defines
        raise InvalidModel("the model to write is not valid ONNX", where=path, got=_root_cause(exc)) from exc
    _embed_attributes(copy)
    _drop_redundant_types(copy)
    with atomic_folder(path) as scratch:
        if weight_bytes(copy) > SINGLE_FILE_BYTES:
            ir.save(copy, scratch / path.name, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE_BYTES)
            check_written(onnx.load(scratch / path.name, load_external_data=False), path)
        else:
            _embed_initializers(copy)
            proto = ir.serde.serialize_model(copy)
            check_written(proto, path)
            (scratch / path.name).write_bytes(proto.SerializeToString(deterministic=True))


def check_written(proto: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Check what is about to be written under ``path``.

    Raises:
        InvalidModel: onnx.checker objects.
    """
    try:
        check_proto(proto)
    except InvalidModel as exc:
        raise InvalidModel("the model to write is not valid ONNX", where=path, got=exc.got or exc.what) from exc


def weight_bytes(model: ir.Model) -> int:
    """Size of all initializers and constant attributes; no weight is read for it."""
    return sum(int(tensor.nbytes) for tensor in every_tensor(model))


def _drop_redundant_types(model: ir.Model) -> None:
    """An initializer's own type and shape say all; onnx_ir would write them a second time."""
    for graph in every_graph(model):
        for value in graph.initializers.values():
            if value.const_value is not None and not value.is_graph_input() and not value.is_graph_output():
                value.type, value.shape = None, None


def _embed_initializers(model: ir.Model) -> None:
    for graph in every_graph(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _in_memory(value.const_value)


def _embed_attributes(model: ir.Model) -> None:
    """Move external tensors of attributes into the graph file: their paths only hold beside the file they came with."""
    for graph in every_graph(model):
        for node, name, tensors in tensor_attributes(graph):
            if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
                inside = [_in_memory(tensor) for tensor in tensors]
                one = node.attributes[name].type == ir.AttributeType.TENSOR
                node.attributes[name] = ir.AttrTensor(name, inside[0]) if one else ir.AttrTensors(name, inside)


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)
