"""What some nodes of a model cost together, as when an engine runs them as one: arithmetic, and memory traffic.

Conventions as in :mod:`toolkit.graph.cost`, but for what passes between the nodes: it never leaves the registers or the
cache of the kernel that they were fused into, and is not counted; and multiplications by a convolution's padding, which
kernels leave out: 18 % of them where a 3 × 3 filter passes over 7 × 7 pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import final

import msgspec
import onnx_ir as ir

from toolkit.graph.cost import ValueSizes, is_constant, settled
from toolkit.graph.edit import subgraphs
from toolkit.graph.flops import VIEWS, share_on_data
from toolkit.graph.shapes import infer
from toolkit.graph.walk import every_graph, every_node

_SHAPE_ONLY = {"Shape", "Size"}
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


class RegionCost(msgspec.Struct, frozen=True):
    """Per inference; ``flops`` is None where one of the nodes has no rule or a shape is not known."""

    flops: int | None
    read_bytes: int
    written_bytes: int


@final
class NodeCosts:
    """Costs of a model's nodes, by their names, which are distinct.

    Args:
        model: the model; it is not changed.
        dims: sizes of all its named dims.

    Raises:
        UsageError: a dim that the model does not have.
    """

    def __init__(self, model: ir.Model, dims: Mapping[str, int]) -> None:
        model = settled(model, dims)
        self._values = ValueSizes(infer(model))
        self._nodes = {node.name: node for node in every_node(model)}
        self._parents = {body: node for node in self._nodes.values() for body in subgraphs(node)}
        self._outputs = {value for graph in every_graph(model) for value in graph.outputs}

    def region(self, names: Collection[str], float_bytes: int = 0) -> RegionCost:
        """Cost of the nodes called ``names`` when they run as one.

        Args:
            names: of nodes; those that follow from constants and fixed dims cost nothing.
            float_bytes: size of a floating-point number as it was executed; 0 for what the file says.
        """
        nodes = [self._nodes[name] for name in names if name in self._nodes]
        inside = set(nodes)
        read = {value: self._read(node, value, float_bytes) for node in nodes for value in _reads(node, inside)}
        written = {value for node in nodes for value in node.outputs if value.name and self._leaves(value, inside)}
        if all(node.op_type in VIEWS for node in nodes):
            return RegionCost(0, 0, 0)
        return RegionCost(
            self._flops(nodes, inside), sum(read.values()), sum(self._bytes(value, float_bytes) for value in written)
        )

    def _flops(self, nodes: Collection[ir.Node], inside: set[ir.Node]) -> int | None:
        found = [self._node_flops(node, inside) for node in nodes if not self._runs_in(node, inside)]
        return None if None in found else sum(flops for flops in found if flops is not None)

    def _node_flops(self, node: ir.Node, inside: set[ir.Node]) -> int | None:
        """Operations of one node; of an If the costlier branch, unless its nodes are accounted for elsewhere."""
        bodies = subgraphs(node)
        if not bodies:
            return self._own_flops(node) if self._values.known(node) else None
        own = [[member for member in body if member in inside] for body in bodies]
        if not any(own):
            return 0
        if node.op_type != "If":
            return None  # how often a loop runs is not known
        branches = [[self._node_flops(member, inside) for member in body] for body in own]
        if any(flops is None for branch in branches for flops in branch):
            return None
        return max(sum(flops for flops in branch if flops is not None) for branch in branches)

    def _own_flops(self, node: ir.Node) -> int | None:
        flops = self._values.flops(node)
        if flops is None or node.op_type != "Conv":
            return flops
        image, filters, outputs = (self._values.of(value) for value in (*node.inputs[:2], node.outputs[0]))
        if image is None or filters is None or outputs is None:
            return flops
        return round(flops * share_on_data(node, image[2:], filters[2:], outputs[2:]))

    def _runs_in(self, node: ir.Node, inside: set[ir.Node]) -> bool:
        """Whether ``node`` is counted with an If or a loop of the region that it runs in."""
        owner = self._parents.get(node.graph)
        return owner is not None and (owner in inside or self._runs_in(owner, inside))

    def _leaves(self, value: ir.Value, inside: set[ir.Node]) -> bool:
        return value in self._outputs or any(user not in inside for user, _ in value.uses())

    def _read(self, node: ir.Node, value: ir.Value, float_bytes: int) -> int:
        if node.op_type == "Gather" and value is node.inputs[0] and is_constant(value):
            return self._bytes(node.outputs[0], float_bytes)  # the rows that are taken
        return self._bytes(value, float_bytes)

    def _bytes(self, value: ir.Value, float_bytes: int) -> int:
        dtype = self._values.dtype(value)
        size = self._values.bytes(value)
        if dtype is None or dtype not in _FLOATS or not float_bytes:
            return size
        return size * float_bytes * 8 // int(dtype.bitwidth)


def _reads(node: ir.Node, inside: set[ir.Node]) -> list[ir.Value]:
    """What ``node`` reads from outside of a region."""
    if node.op_type in _SHAPE_ONLY:
        return []
    return [value for value in node.inputs if value is not None and value.producer() not in inside]
