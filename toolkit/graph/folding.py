"""Nodes whose result is known before the model runs."""

from __future__ import annotations

from typing import final

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from toolkit.errors import one_line
from toolkit.graph.constants import become_constant, constant_ints, constant_tensor, only_use
from toolkit.graph.edit import subgraphs
from toolkit.graph.precision import is_quantizing
from toolkit.graph.randomness import is_random
from toolkit.graph.shapes import Inferred, Shapes, infer
from toolkit.tensors import Array

# A result may be larger than the constants it frees, up to this many bytes: position indices and masks, yes; a tiled
# table, or weights that are stored in half precision to save space, no.
DEFAULT_GROWTH_BYTES = 16_384
_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.INT8, ir.DataType.UINT8)


@final
class Folding:
    """What was folded and why the rest was not."""

    def __init__(self) -> None:
        self.folded: list[str] = []
        self.skipped: list[str] = []


def fold_constants(model: ir.Model, growth_bytes: int = DEFAULT_GROWTH_BYTES) -> Folding:
    """Replace, in place, what depends on constants alone and the sizes of dims that are fixed by initializers.

    Left alone: dynamic dims, random numbers, quantize and dequantize nodes (int8 weights stay int8 weights), control
    flow, and results larger than what they free by more than ``growth_bytes``.
    """
    found = Folding()
    # Sizes must rest on the inputs alone, which engines check: a wrong annotation would freeze a dim.
    shapes = infer(model, annotations=False)
    opset = model.opset_imports.get("", 1)
    for graph in model.graphs():
        for node in list(graph):
            if node.domain or len(node.outputs) != 1 or node.op_type == "Constant":
                continue
            result = _result(node, shapes, opset, growth_bytes, found)
            if result is not None:
                found.folded.append(f"{node.op_type} {node.outputs[0].name}")
                become_constant(node, ir.tensor(result))
    return found


def _result(node: ir.Node, shapes: Shapes, opset: int, growth_bytes: int, found: Folding) -> Array | None:
    result = known_sizes(node, shapes)
    constant = bool(node.inputs) and all(value is None or constant_tensor(value) for value in node.inputs)
    if result is None and not constant:
        return None
    if node.outputs[0].is_graph_output():
        found.skipped.append("the result is an output")
        return None
    if result is not None:
        return result
    reason = _reason_against(node, shapes.get(node.outputs[0]), growth_bytes)
    if reason is None:
        try:
            return evaluate(node, opset)
        except Exception as exc:  # noqa: BLE001  # whatever the reference implementation lacks; the node stays
            reason = f"{node.op_type} cannot be computed: {one_line(exc, 80)}"
    found.skipped.append(reason)
    return None


def _reason_against(node: ir.Node, result: Inferred | None, growth_bytes: int) -> str | None:
    if is_quantizing(node) or is_random(node) or subgraphs(node):
        return "quantization, random numbers or control flow"
    if result is None or result.sizes is None or result.dtype is None:
        return "the shape of the result is not known"
    tensors = [(value, tensor) for value in node.inputs if (tensor := constant_tensor(value)) is not None]
    if node.op_type == "Cast" and tensors[0][1].dtype in _NARROW and tensors[0][1].size > 1:
        return "it widens weights that are stored narrow"
    freed = sum(tensor.nbytes for value, tensor in tensors if value is not None and only_use(value))
    size = int(np.prod(result.sizes, dtype=np.int64)) * result.dtype.itemsize
    return f"the result is larger by over {growth_bytes} bytes" if size > freed + growth_bytes else None


def evaluate(node: ir.Node, opset: int) -> Array:
    """The node's result on its constant inputs, by onnx's reference implementation."""
    tensors = {value.name: constant_tensor(value) for value in node.inputs if value is not None}
    feeds = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
    inputs = [
        onnx.helper.make_tensor_value_info(name, tensor.dtype, tensor.shape)
        for name, tensor in tensors.items()
        if tensor
    ]
    output = onnx.helper.make_empty_tensor_value_info(node.outputs[0].name)
    graph = onnx.helper.make_graph([ir.serde.serialize_node(node)], "one_node", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])


def known_sizes(node: ir.Node, shapes: Shapes) -> Array | None:
    """The result of Shape, Size, or Gather and Slice from a Shape, where the dims they ask for are fixed."""
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    if node.op_type in ("Shape", "Size"):
        dims = _dims(node, shapes)
        if dims is None or any(dim is None for dim in dims):
            return None
        sizes = np.array(dims, np.int64)
        return sizes if node.op_type == "Shape" else np.asarray(sizes.prod(dtype=np.int64))
    origin = source.producer()
    if origin is None or origin.op_type != "Shape" or origin.domain:
        return None
    dims = _dims(origin, shapes)
    chosen = None if dims is None else _chosen(node, len(dims))
    if dims is None or chosen is None or any(dims[index] is None for index in chosen.reshape(-1)):
        return None
    return np.array([dims[index] for index in chosen.reshape(-1)], np.int64).reshape(chosen.shape)


def _dims(node: ir.Node, shapes: Shapes) -> list[int | None] | None:
    """What a Shape node returns; None for the dims that are not fixed."""
    found = shapes.get(node.inputs[0]) if node.inputs[0] is not None else None
    if found is None or found.shape is None:
        return None
    dims = [dim if isinstance(dim, int) and dim >= 0 else None for dim in found.shape]
    return dims[slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", None))]


def _chosen(node: ir.Node, count: int) -> Array | None:
    """Which elements of a list of ``count`` dims a Gather or Slice takes, as indices."""
    if node.op_type == "Gather":
        tensor = constant_tensor(node.inputs[1])
        return None if tensor is None else np.arange(count)[tensor.numpy()]
    if node.op_type != "Slice":
        return None
    given = [constant_ints(value) for value in node.inputs[1:]]
    if len(given) < 2 or any(item is None for item in given):
        return None
    start, end = given[0], given[1]
    step = given[3] if len(given) > 3 else [1]
    return np.arange(count)[start[0] : end[0] : step[0]] if start and end and step else None
