"""Which nodes become int8 under a placement, and why the others stay float. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit.errors import UsageError
from toolkit.graph.edit import subgraphs
from toolkit.graph.shapes import Shapes
from toolkit.providers.placement import Rule, Variant
from toolkit.quantizer.lowering.fitness import unfit
from toolkit.tensors import nearest


class LeftInFloat(msgspec.Struct, frozen=True):
    """A node that the placement knows a rule for, and why it was not quantized."""

    node: str
    operator: str
    reason: str


class PlacedNode(msgspec.Struct, frozen=True):
    """A node that becomes int8.

    Attributes:
        activations: operand number to the value that gets a Q/DQ pair.
        result: the value whose readers all read a Q/DQ pair; None where the result stays float.
    """

    node: ir.Node
    rule: Rule
    activations: dict[int, ir.Value]
    result: ir.Value | None


class Plan(msgspec.Struct, frozen=True):
    """A placement applied to a model.

    Attributes:
        scale_of: a value to the one whose range it is quantized with, where that is another one.
    """

    variant: Variant
    nodes: tuple[PlacedNode, ...]
    left: tuple[LeftInFloat, ...]
    scale_of: dict[ir.Value, ir.Value]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors whose ranges are needed, in graph order."""
        found: dict[str, None] = {}
        for placed in self.nodes:
            for value in (*placed.activations.values(), *filter(None, [placed.result])):
                found[self.scale_of.get(value, value).name or ""] = None
        return tuple(found)


def make_plan(
    model: ir.Model, variant: Variant, shapes: Shapes, *, unusable: Mapping[str, str] | None = None,
    keep_float: Mapping[str, str] | None = None,
) -> Plan:  # fmt: skip
    """Apply ``variant`` to ``model``.

    Args:
        model: prepared (:mod:`toolkit.quantizer.preparing`).
        shapes: its inferred types.
        unusable: tensors that cannot be quantized, with the reason.
        keep_float: names of nodes that shall stay as they are, with the reason.

    Raises:
        UsageError: ``keep_float`` names a node that the model does not have.
    """
    names = {node.name or "" for node in model.graph}
    keep_float = keep_float or {}
    for name in keep_float:
        if name not in names:
            raise UsageError(
                "the model has no such node", where="--keep-float", got=name, expected=nearest(name, names)
            )
    planner = _Planner(variant, shapes, unusable or {}, keep_float)
    for node in model.graph:
        planner.consider(node)
    return planner.plan(model)


@final
class _Planner:
    def __init__(
        self, variant: Variant, shapes: Shapes, unusable: Mapping[str, str], keep_float: Mapping[str, str]
    ) -> None:
        self._variant, self._shapes, self._unusable, self._keep_float = variant, shapes, unusable, keep_float
        self._nodes: list[PlacedNode] = []
        self._left: list[LeftInFloat] = []
        self._results: set[ir.Value] = set()
        self._paired: set[ir.Value] = set()

    def consider(self, node: ir.Node) -> None:
        rules = [rule for rule in self._variant.rules if node.op_type in rule.operators and not node.domain]
        if not rules or (rules[0].one_scale and not self._joined(node)):
            return
        reason = ""
        for rule in rules:
            found = self._refusal(node, rule)
            if found is None:
                self._accept(node, rule)
                return
            reason = reason or found
        self._left.append(LeftInFloat(node.name or "", node.op_type, reason))

    def _accept(self, node: ir.Node, rule: Rule) -> None:
        activations = {index: _operand(node, index) for index in _read(node, rule)}
        result = self._tail(node) if rule.output else None
        if result is not None:
            self._results.add(result)
        self._paired.update(value for value in activations.values() if value)
        self._nodes.append(PlacedNode(node, rule, {i: value for i, value in activations.items() if value}, result))

    def plan(self, model: ir.Model) -> Plan:
        self._drop_unread_joins()
        self._drop_unread_results()
        computing = {operator for rule in self._variant.rules if not rule.one_scale for operator in rule.operators}
        for node, operator in _nodes_in_subgraphs(model):
            if operator in computing:
                self._left.append(LeftInFloat(node, operator, "inside a subgraph"))
        values = [value for placed in self._nodes for value in placed.activations.values()]
        scale_of = {value: root for value in values if (root := self._root(value)) is not value}
        return Plan(self._variant, tuple(self._nodes), tuple(self._left), scale_of)

    def _joined(self, node: ir.Node) -> bool:
        """Whether ``node`` reads a quantized result: shapes are put together as well, and are nobody's business."""
        return any(value is not None and self._root(value) in self._results for value in node.inputs)

    def _drop_unread_joins(self) -> None:
        """A Concat between quantized and float nodes stays float: its result would be rounded for nobody."""
        kept: list[PlacedNode] = []
        read: set[ir.Value] = set()
        for placed in reversed(self._nodes):
            if placed.rule.one_scale and placed.result is not None and placed.result not in read:
                self._left.append(
                    LeftInFloat(placed.node.name or "", placed.node.op_type, "no quantized node reads it")
                )
                self._results.discard(placed.result)
                continue
            kept.append(placed)
            read.update(self._root(value) for value in placed.activations.values())
        self._nodes = kept[::-1]

    def _drop_unread_results(self) -> None:
        """Engines that take float results of a rule's nodes as they are gain nothing by rounding them for nobody."""
        read = {self._root(value) for placed in self._nodes for value in placed.activations.values()}
        for index, placed in enumerate(self._nodes):
            if placed.rule.only_read and placed.result is not None and placed.result not in read:
                self._results.discard(placed.result)
                self._nodes[index] = msgspec.structs.replace(placed, result=None)

    def _refusal(self, node: ir.Node, rule: Rule) -> str | None:
        """Why ``rule`` does not fit ``node``; None when it does."""
        if node.name in self._keep_float:
            return self._keep_float[node.name]
        return (
            self._activation_refusal(node, rule)
            or (_weight_refusal(node, rule.weight) if rule.weight is not None else None)
            or (_bias_refusal(node, rule.bias) if rule.bias is not None else None)
            or (_gemm_refusal(node) if node.op_type == "Gemm" else None)
            or (self._range_refusal(self._tail(node)) if rule.output else None)
        )

    def _activation_refusal(self, node: ir.Node, rule: Rule) -> str | None:
        for index in _read(node, rule):
            value = _operand(node, index)
            if value is None or value.const_value is not None:
                return f"operand {index} is {'missing' if value is None else 'a constant'}"
            dtype = self._shapes[value].dtype if value in self._shapes else value.dtype
            if dtype is not ir.DataType.FLOAT:
                return f"operand {index} is {'of unknown type' if dtype is None else str(dtype).lower()}, not float32"
            if rule.only_between and not {value, self._root(value)} & (self._results | self._paired):
                return "not between quantized nodes"
            if rule.one_scale and self._root(value) not in self._results:
                return f"operand {index} is not quantized"
            if reason := self._range_refusal(value):
                return reason
        return None

    def _range_refusal(self, value: ir.Value) -> str | None:
        return self._unusable.get(self._root(value).name or "")

    def _root(self, value: ir.Value) -> ir.Value:
        """The quantized result that ``value`` holds the elements of, or ``value`` itself."""
        found: ir.Value | None = value
        while found is not None and found not in self._results:
            producer = found.producer()
            if producer is None or producer.domain or producer.op_type not in self._variant.transparent:
                return value
            found = producer.inputs[0]
        return found or value

    def _tail(self, node: ir.Node) -> ir.Value:
        """What leaves the chain of nodes that the engine runs as one with ``node``."""
        chain = [node.op_type]
        value = node.outputs[0]
        while not value.is_graph_output():
            readers = [use.node for use in value.uses()]
            if len(readers) != 1 or readers[0].domain or readers[0].graph is not node.graph:
                break
            chain.append(readers[0].op_type)
            if not any(list(whole[: len(chain)]) == chain for whole in self._variant.keep_whole):
                break
            value = readers[0].outputs[0]
        return value


def _read(node: ir.Node, rule: Rule) -> Sequence[int]:
    return range(len(node.inputs)) if rule.one_scale else rule.activations


def _operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a constant operand."""
    return None if value is None else value.const_value


def _weight_refusal(node: ir.Node, index: int) -> str | None:
    tensor = constant(_operand(node, index))
    if tensor is None:
        return "its weight is not a constant"
    if tensor.dtype is not ir.DataType.FLOAT:
        return f"its weight is {str(tensor.dtype).lower()}, not float32"
    if len(tensor.shape) < 2 or tensor.size == 0:
        return f"its weight has the shape {list(tensor.shape)}"
    return unfit(tensor)


def _bias_refusal(node: ir.Node, index: int) -> str | None:
    value = _operand(node, index)
    if value is None:
        return None
    tensor = constant(value)
    if tensor is None:
        return "its bias is not a constant"
    if tensor.dtype is not ir.DataType.FLOAT or not np.isfinite(tensor.numpy()).all():
        return "its bias is not finite float32"
    sizes = [int(size) for size in tensor.shape if int(size) != 1]
    return None if len(sizes) <= 1 and int(tensor.shape[-1] if len(tensor.shape) else 0) == tensor.size else (
        f"its bias has the shape {list(tensor.shape)}"
    )  # fmt: skip


def _gemm_refusal(node: ir.Node) -> str | None:
    plain = node.attributes.get_float("alpha", 1.0) == 1.0 and node.attributes.get_float("beta", 1.0) == 1.0
    return None if plain and not node.attributes.get_int("transA", 0) else "alpha, beta or transA is set"


def _nodes_in_subgraphs(model: ir.Model) -> Iterator[tuple[str, str]]:
    """Name and operator of every node below the main graph."""
    stack = [graph for node in model.graph for graph in subgraphs(node)]
    while stack:
        for node in stack.pop():
            yield node.name or "", node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
            stack += subgraphs(node)
