"""Which dims of different values are always equal, for proofs that broadcasting changes no shape."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import final

import onnx_ir as ir

from toolkit.graph.constants import constant_ints
from toolkit.graph.facts import is_unknown
from toolkit.graph.shapes import infer
from toolkit.graph.walk import every_graph

# A size: a number, or a name that stands for the same size wherever it occurs; None where neither is known.
Size = int | str | None
_BROADCASTS = {
    "Add", "Sub", "Mul", "Div", "Pow", "Where", "Max", "Min", "Mean", "Sum", "And", "Or", "Xor", "Equal", "Less",
    "LessOrEqual", "Greater", "GreaterOrEqual",
}  # fmt: skip


@final
class EqualSizes:
    """Sizes of one model's values.

    onnx's inference gives the same name to sizes that it knows to be equal, and a new one to what a Reshape infers and
    to what comes of two names. Here such a name is traced to an older one: a Reshape keeps the number of elements, and
    where all that broadcasts into a dim is of one size, so is the result. As everywhere in the toolkit, a named dim of
    the inputs is one size, and dims with the names that exporters give to unknown ones are not.

    Args:
        annotations: whether to believe what the file says of values that nodes compute (:func:`infer`).
    """

    def __init__(self, model: ir.Model, *, annotations: bool = False) -> None:
        # What the file claims about intermediate values may be wrong: no engine checks it.
        self._shapes = dict(infer(model, annotations=annotations))
        given = [dim for value in model.graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)]
        counts = Counter(dim.value for dim in given if is_unknown(dim))
        self._ambiguous = {name for name, count in counts.items() if count > 1}
        self._older: dict[str, str] = {}
        for graph in every_graph(model):
            for node in graph:
                if not node.domain:
                    self._learn(node)

    def of(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """The sizes of ``value``; None where not even their number is known."""
        found = self._shapes.get(value) if value is not None else None
        return None if found is None or found.shape is None else tuple(self._size(dim) for dim in found.shape)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The type of its elements, where it is known."""
        return self._shapes[value].dtype if value in self._shapes else None

    def fits(self, small: ir.Value | None, large: ir.Value | None) -> bool:
        """Whether broadcasting the two together gives the shape of ``large``, whatever it is: False is "not proven"."""
        inner, outer = self.of(small), self.of(large)
        if not inner:
            return inner is not None
        if outer is None or len(inner) > len(outer):
            return False
        pairs = zip(inner, outer[-len(inner) :], strict=True)
        return all(one == 1 or (one is not None and one == other) for one, other in pairs)

    def stands_for(self, new: ir.Value, old: ir.Value) -> None:
        """Remember that ``new``, which inference never saw, has the shape of ``old``."""
        if old in self._shapes:
            self._shapes[new] = self._shapes[old]

    def _size(self, dim: int | ir.SymbolicDim) -> Size:
        if isinstance(dim, int):
            return dim if dim >= 0 else None
        name = dim.value
        if not isinstance(name, str) or name in self._ambiguous:
            return None
        return self._oldest(name)

    def _oldest(self, name: str) -> str:
        while name in self._older:
            name = self._older[name]
        return name

    def _learn(self, node: ir.Node) -> None:
        if node.op_type == "Reshape" and len(node.inputs) == 2:
            self._reshaped(node)
        elif node.op_type in _BROADCASTS and not node.attributes:  # before opset 7 attributes said what broadcasts
            self._broadcast(node.outputs[0], [self.of(value) for value in node.inputs])
        elif node.op_type == "MatMul":
            operands = [self.of(value) for value in node.inputs]
            if all(sizes is not None and len(sizes) >= 2 for sizes in operands):
                self._broadcast(node.outputs[0], [sizes[:-2] for sizes in operands if sizes], behind=2)

    def _broadcast(self, result: ir.Value, operands: list[tuple[Size, ...] | None], behind: int = 0) -> None:
        """Learn that what ``operands`` agree on is in ``result``, but for its last ``behind`` axes."""
        sizes = self.of(result)
        if sizes is None:
            return
        leading = sizes[: len(sizes) - behind]
        for axis in range(1, len(leading) + 1):
            # One of unknown rank may have anything there.
            column = {None if item is None else item[-axis] for item in operands if item is None or len(item) >= axis}
            if len(column - {1}) == 1:
                self._equate(leading[-axis], (column - {1}).pop())

    def _reshaped(self, node: ir.Node) -> None:
        """Learn the size that -1 stands for, where the others of both sides cancel.

        An engine infers no -1 beside a size of 0, so nothing that cancels is 0.
        """
        source, result, asked = self.of(node.inputs[0]), self.of(node.outputs[0]), constant_ints(node.inputs[1])
        if source is None or result is None or asked is None or asked.count(-1) != 1 or len(asked) != len(result):
            return
        inferred = asked.index(-1)
        left = Counter(source)
        right = Counter(result[:inferred] + result[inferred + 1 :])
        names = [size for size in (left - right).elements() if not isinstance(size, int)]
        spare = [size for size in (right - left).elements() if not isinstance(size, int)]
        if len(names) == 1 and not spare and None not in (*left, *right) and _product(left) == _product(right) != 0:
            self._equate(result[inferred], names[0])

    def _equate(self, newer: Size, older: Size) -> None:
        if isinstance(newer, str) and isinstance(older, str):
            # What was learned since they were looked up must not become a circle.
            newer, older = self._oldest(newer), self._oldest(older)
            if newer != older:
                self._older[newer] = older


def _product(sizes: Counter[Size]) -> int:
    return prod(size for size in sizes.elements() if isinstance(size, int))
