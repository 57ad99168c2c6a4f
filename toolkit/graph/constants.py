"""Which values are constant, their arrays, and putting a constant in a node's place."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import graph_of, remove
from toolkit.tensors import Array


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer that nobody can override, or of a Constant node; None for anything else."""
    if value is None:
        return None
    producer = value.producer()
    if producer is None:
        return None if value.is_graph_input() else value.const_value
    return ir.convenience.get_const_tensor(value) if producer.op_type == "Constant" else None


def constant_array(value: ir.Value | None) -> Array | None:
    tensor = constant_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else np.asarray(tensor.numpy())


def constant_ints(value: ir.Value | None) -> list[int] | None:
    """Constant integers as a flat list: axes, shapes, indices."""
    array = constant_array(value)
    return None if array is None or array.dtype.kind not in "iu" else [int(item) for item in array.reshape(-1)]


def axes_of(node: ir.Node) -> list[int] | None:
    """The axes of a Squeeze, Unsqueeze or reduction, from its attribute (old opsets) or its constant input."""
    given = node.attributes.get_ints("axes")
    if given is not None:
        return list(given)
    return constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None


def only_use(value: ir.Value) -> bool:
    """Whether one node reads ``value`` once and no graph returns it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``, in the same graph; None where there are more, or the graph returns it."""
    if not only_use(value):
        return None
    node = value.consumers()[0]
    producer = value.producer()
    return node if producer is not None and node.graph is producer.graph else None


def become_constant(node: ir.Node, tensor: ir.TensorProtocol) -> None:
    """Replace ``node``, whose only output no graph returns, by an initializer of the same name."""
    graph, output = graph_of(node), node.outputs[0]
    name, output.name = output.name, f"{output.name}__folded"
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
    output.replace_all_uses_with(value)
    remove(node)
    graph.register_initializer(value)
