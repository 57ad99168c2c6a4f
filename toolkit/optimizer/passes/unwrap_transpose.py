"""Transposes of the last two axes that were written for three axes, between two reshapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import onnx_ir as ir

from toolkit.graph.constants import constant_ints
from toolkit.graph.edit import Editor, remove, replace
from toolkit.graph.shapes import Shapes, infer
from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass

# A size: a number, or an axis of a value whose size is not fixed.
_Size = int | tuple[ir.Value, int]


@final
class UnwrapTranspose(Pass):
    """Reshape to (-1, T, D), Transpose, Reshape to (..., D, T) becomes one Transpose of the last two axes.

    torch writes the keys of ``scaled_dot_product_attention`` so; engines look for the one Transpose. Sizes have to be
    provably those of what is reshaped: fixed, or read from its own Shape.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        found = [
            (node, wrapped) for graph in every_graph(model) for node in graph if (wrapped := _wrapped(node)) is not None
        ]
        if not found:
            return model
        editor, sizes = Editor(model), _Sizes(infer(model, annotations=False))
        for narrow, (source, into, out) in found:
            dims = sizes.dims(source)
            if dims is None or len(dims) < 3 or not _same(sizes.elements(into), sizes.elements(out), dims):
                changes.skip("the reshapes may do more than join and split the leading axes")
            else:
                changes.made(narrow.outputs[0].name or "?")
                self._unwrap(editor, narrow, source, len(dims))
        return model

    @staticmethod
    def _unwrap(editor: Editor, last: ir.Node, source: ir.Value, rank: int) -> None:
        output = last.outputs[0]
        perm = [*range(rank - 2), rank - 1, rank - 2]
        result = editor.before(last, "Transpose", [source], {"perm": perm}, name=f"{output.name}_unwrapped")
        result.shape, result.type = output.shape, output.type
        replace(output, result)
        remove(last)


def _wrapped(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """What the first of Reshape, Transpose (0, 2, 1), Reshape reads, and the shapes that the two reshapes ask for."""
    middle = _before(node, "Reshape")
    first = _before(middle, "Transpose") if middle is not None else None
    if middle is None or first is None or first.op_type != "Reshape" or first.domain or first.graph is not node.graph:
        return None
    source, into, out = first.inputs[0], first.inputs[1], node.inputs[1]
    if list(middle.attributes.get_ints("perm") or ()) != [0, 2, 1] or source is None or into is None or out is None:
        return None
    return source, into, out


def _before(node: ir.Node, op_type: str) -> ir.Node | None:
    """What makes the first input of ``node``, which is an ``op_type``."""
    if node.op_type != op_type or node.domain or node.inputs[0] is None:
        return None
    return node.inputs[0].producer()


def _same(into: Sequence[_Size] | None, out: Sequence[_Size] | None, dims: Sequence[_Size]) -> bool:
    """Whether reshaping to ``into`` joins the leading of ``dims``, and ``out`` splits them again, the last two swapped.

    One -1 may stand for a size that follows from the others; 0 means several things and is refused.
    """
    if into is None or out is None or len(into) != 3 or 0 in (*into, *out, *dims):
        return False
    rows, columns = dims[-2:]
    wanted = [*dims[:-2], columns, rows]
    return (
        _matches(into[1:], [rows, columns], may_infer=into[0] != -1)
        and (into[0] == -1 or (len(dims) == 3 and into[0] == dims[0]))
        and len(out) == len(wanted)
        and _matches(out, wanted, may_infer=True)
    )


def _matches(asked: Sequence[_Size], wanted: Sequence[_Size], *, may_infer: bool) -> bool:
    inferred = [size == -1 for size in asked]
    if sum(inferred) > (1 if may_infer else 0):
        return False
    return all(free or size == want for free, size, want in zip(inferred, asked, wanted, strict=True))


@final
class _Sizes:
    """Sizes of values, and what computed shapes are made of."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def dims(self, value: ir.Value) -> list[_Size] | None:
        found = self._shapes.get(value)
        if found is None or found.shape is None:
            return None
        return [dim if isinstance(dim, int) and dim >= 0 else (value, axis) for axis, dim in enumerate(found.shape)]

    def elements(self, value: ir.Value | None) -> list[_Size] | None:
        """The elements of a one-dimensional shape."""
        constants = constant_ints(value)
        if constants is not None:
            return list(constants)
        node = value.producer() if value is not None else None
        if node is None or node.domain:
            return None
        if node.op_type == "Concat":
            parts = [self.elements(item) for item in node.inputs]
            return None if any(part is None for part in parts) else [size for part in parts for size in part or ()]
        if node.op_type == "Shape" and node.inputs[0] is not None:
            dims = self.dims(node.inputs[0])
            wanted = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", None))
            return None if dims is None else dims[wanted]
        return self._sliced(node) if node.op_type == "Slice" else None

    def _sliced(self, node: ir.Node) -> list[_Size] | None:
        source, bounds = self.elements(node.inputs[0]), [constant_ints(value) for value in node.inputs[1:]]
        if source is None or len(bounds) < 2 or len(node.inputs) > 4:
            return None
        start, end = bounds[:2]
        return source[start[0] : end[0]] if start and end else None
