"""A half precision graph in float32: the same computation for engines that lack half precision kernels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

_HALVES = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)


def has_halves(model: ir.Model) -> bool:
    return any(value.dtype in _HALVES for value in _values(model))


def single_precision(model: ir.Model) -> ir.Model:
    """A copy of ``model`` whose half precision weights, casts and values are float32."""
    copy = model.clone()
    for value in _values(copy):
        if value.dtype in _HALVES:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        if value.const_value is not None and value.const_value.dtype in _HALVES:
            value.const_value = _wide(value.const_value)
    for node in copy.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _HALVES:
                node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
            elif name in ("to", "dtype") and attribute.type == ir.AttributeType.INT and attribute.as_int() in _HALVES:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    return copy


def _wide(tensor: ir.TensorProtocol) -> ir.Tensor:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs
