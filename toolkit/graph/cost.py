"""What one inference costs: arithmetic and memory traffic by operator, from shapes alone.

Conventions: a multiplication and an addition are two operations; an elementwise function counts as one per element,
whatever it is; moving data is no arithmetic. Every node reads its inputs and writes its outputs once, as if no engine
fused anything; views (Reshape and the like) move nothing. Of an If the costlier branch counts. What engines
compute ahead, because it follows from constants and fixed dims, is no cost.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import final

import msgspec
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from toolkit.graph.branches import inline_constant_ifs
from toolkit.graph.edit import subgraphs
from toolkit.graph.facts import input_specs, operator_name
from toolkit.graph.flops import FREE, VIEWS, flops_of
from toolkit.graph.folding import fold_constants
from toolkit.graph.shapes import Inferred, fix_dims, infer
from toolkit.tensors import complete_dims

# Shapes computed from shapes settle in a few rounds; a model that never does is counted as it is.
_MAX_ROUNDS = 12
# The folded graph is thrown away, so its size matters little: engines fold weights that are only reshaped.
_FOLDED_BYTES = 1 << 26


class OperatorCost(msgspec.Struct, frozen=True):
    """All nodes of one type together."""

    operator: str
    nodes: int
    flops: int
    weight_bytes: int
    activation_bytes: int


class ModelCost(msgspec.Struct, frozen=True):
    """One inference at ``dims``.

    Attributes:
        weight_bytes: constants read; of a table that is gathered from, the rows taken.
        activation_bytes: everything else that nodes read and write.
        operators: costliest first.
        uncounted: nodes that are in no sum, by reason.
    """

    dims: dict[str, int]
    flops: int
    weight_bytes: int
    activation_bytes: int
    operators: tuple[OperatorCost, ...]
    uncounted: dict[str, int]


def cost(model: ir.Model, dims: Mapping[str, int] | None = None) -> ModelCost:
    """Cost of one inference.

    Args:
        model: the model.
        dims: sizes of its named dims; the defaults of :func:`toolkit.tensors.complete_dims` for the rest.

    Raises:
        UsageError: a dim that the model does not have.
    """
    sizes = complete_dims(input_specs(model), dims)
    model = settled(model, sizes)
    tally = _Tally(ValueSizes(infer(model)))
    tally.add(model.graph)
    return tally.total(sizes)


def settled(model: ir.Model, sizes: Mapping[str, int]) -> ir.Model:
    """A copy of ``model`` at these sizes, without what engines compute ahead. Nodes that stay keep their names."""
    model = fix_dims(model, sizes)
    if model.functions:
        model = InlinePass()(model).model
    for _ in range(_MAX_ROUNDS):
        if not fold_constants(model, _FOLDED_BYTES).folded and not inline_constant_ifs(model):
            break
    return model


@final
class ValueSizes:
    """Shapes and bytes of a settled model's values."""

    def __init__(self, shapes: Mapping[ir.Value, Inferred]) -> None:
        self._shapes = shapes

    def of(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The shape; None where it is not known."""
        if value is None:
            return None
        if value.const_value is not None:
            return tuple(int(dim) for dim in value.const_value.shape)
        found = self._shapes.get(value)
        return found.sizes if found is not None else None

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        if value.const_value is not None:
            return value.const_value.dtype
        found = self._shapes.get(value)
        return found.dtype if found is not None else None

    def known(self, node: ir.Node) -> bool:
        """Whether the shapes of everything that ``node`` reads and writes are known."""
        read = all(self.of(value) is not None for value in node.inputs if value is not None)
        return read and all(self.of(value) is not None for value in node.outputs if value.name)

    def flops(self, node: ir.Node) -> int | None:
        """Operations of a node whose shapes are known; None where no rule counts them."""
        if node.op_type in FREE:
            return 0
        return flops_of(node, [self.of(value) for value in node.inputs], [self.of(value) for value in node.outputs])

    def bytes(self, value: ir.Value) -> int:
        """Bytes in memory; 0 where size or type are not known, and for text."""
        if value.const_value is not None:
            return int(value.const_value.nbytes)
        sizes, dtype = self.of(value), self.dtype(value)
        if sizes is None or dtype in (None, ir.DataType.STRING):
            return 0
        assert dtype is not None
        return math.ceil(math.prod(sizes) * int(dtype.bitwidth) / 8)


@final
class _Tally:
    """Sums per operator; ``[flops, weight bytes, activation bytes, nodes]``."""

    def __init__(self, values: ValueSizes) -> None:
        self._values = values
        self._sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self._uncounted: Counter[str] = Counter()

    def add(self, graph: ir.Graph) -> None:
        for node in graph:
            if node.op_type == "If" and not node.domain:
                self._merge(max((self._branch(inner) for inner in subgraphs(node)), key=lambda tally: tally.flops))
            elif subgraphs(node):
                self._uncounted[f"{node.op_type}: how often its body runs is not known"] += 1
            elif node.op_type != "Constant":
                self._add_node(node)

    def _branch(self, graph: ir.Graph) -> _Tally:
        tally = _Tally(self._values)
        tally.add(graph)
        return tally

    def _merge(self, other: _Tally) -> None:
        self._uncounted.update(other._uncounted)
        for name, sums in other._sums.items():
            self._sums[name] = [left + right for left, right in zip(self._sums[name], sums, strict=True)]

    def _add_node(self, node: ir.Node) -> None:
        name = operator_name(node)
        if not self._values.known(node):
            self._uncounted[f"{name}: a shape is not known"] += 1
            return
        flops = self._values.flops(node)
        if flops is None:
            self._uncounted[f"{name}: no rule for its arithmetic"] += 1
        weights, activations = (0, 0) if node.op_type in VIEWS else self._traffic(node)
        sums = self._sums[name]
        self._sums[name] = [sums[0] + (flops or 0), sums[1] + weights, sums[2] + activations, sums[3] + 1]

    def _traffic(self, node: ir.Node) -> tuple[int, int]:
        """Bytes of constants and of activations that ``node`` reads and writes."""
        written = self._bytes(node.outputs)
        read = [value for value in node.inputs if value is not None]
        held = [value for value in read if is_constant(value)]
        if node.op_type == "Gather" and held and held[0] is node.inputs[0]:
            return written, written + self._bytes(value for value in read if value not in held)
        return self._bytes(held), written + self._bytes(value for value in read if value not in held)

    def _bytes(self, values: Iterable[ir.Value]) -> int:
        return sum(self._values.bytes(value) for value in values)

    @property
    def flops(self) -> int:
        return sum(sums[0] for sums in self._sums.values())

    def total(self, dims: dict[str, int]) -> ModelCost:
        operators = [OperatorCost(name, n, flops, held, moved) for name, (flops, held, moved, n) in self._sums.items()]
        return ModelCost(
            dims=dims,
            flops=self.flops,
            weight_bytes=sum(item.weight_bytes for item in operators),
            activation_bytes=sum(item.activation_bytes for item in operators),
            operators=tuple(sorted(operators, key=lambda item: (-item.flops, -item.activation_bytes, item.operator))),
            uncounted=dict(sorted(self._uncounted.items())),
        )


def is_constant(value: ir.Value) -> bool:
    """Whether ``value`` is an initializer or comes from a Constant node."""
    producer = value.producer()
    return value.const_value is not None if producer is None else producer.op_type == "Constant"
