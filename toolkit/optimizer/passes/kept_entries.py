"""Whether an additive mask leaves something in every row: rows run along the last axis, -inf leaves an entry out."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import onnx_ir as ir

from toolkit.graph.constants import axes_of, constant_array, constant_ints
from toolkit.optimizer.passes.bounds import Bounds, Interval, interval_of

# operator: whether it is true throughout for values in these intervals, and whether it is false throughout.
_COMPARISONS: dict[str, tuple[Callable[[Interval, Interval], bool], Callable[[Interval, Interval], bool]]] = {
    "LessOrEqual": (lambda a, b: a.high <= b.low, lambda a, b: a.low > b.high),
    "GreaterOrEqual": (lambda a, b: a.low >= b.high, lambda a, b: a.high < b.low),
    "Less": (lambda a, b: a.high < b.low, lambda a, b: a.low >= b.high),
    "Greater": (lambda a, b: a.low > b.high, lambda a, b: a.high <= b.low),
}


@final
class KeptEntries:
    """Proofs about the masks of one model; False means "not proven"."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def in_every_row(self, mask: ir.Value | None) -> bool:
        """Whether each row of ``mask`` holds a finite number, and nothing that is neither finite nor -inf."""
        array, node = constant_array(mask), mask.producer() if mask is not None else None
        if array is not None:
            rows = np.atleast_1d(array).astype(np.float64)
            finite = np.isfinite(rows)
            return bool(rows.size and finite.any(-1).all() and (finite | np.isneginf(rows)).all())
        if node is None or node.domain:
            return False
        if node.op_type == "Where":
            return self._chosen(node)
        return self._passes_rows(node) and self.in_every_row(node.inputs[0])

    def _chosen(self, node: ir.Node) -> bool:
        condition, *branches = node.inputs
        finite = [self._bounds.of(value) is not None for value in branches]
        left_out = [_is_minus_infinity(value) for value in branches]
        if finite[0] and left_out[1]:
            return self._has(condition, True)
        return finite[1] and left_out[0] and self._has(condition, False)

    def _has(self, condition: ir.Value | None, truth: bool) -> bool:
        """Whether each row of a condition has an entry that is ``truth``."""
        array, node = constant_array(condition), condition.producer() if condition is not None else None
        if array is not None:
            rows = np.atleast_1d(array)
            return bool(rows.size and (rows == truth).any(-1).all())
        if node is None or node.domain:
            return False
        if node.op_type == "Not":
            return self._has(node.inputs[0], not truth)
        if self._passes_rows(node):
            return self._has(node.inputs[0], truth)
        return self._first_is(condition, truth)

    def _first_is(self, condition: ir.Value | None, truth: bool) -> bool:
        """Whether the first entry of each row is ``truth``: in a causal mask nothing is hidden before the first."""
        array, node = constant_array(condition), condition.producer() if condition is not None else None
        if array is not None:
            return bool(array.ndim and array.size and (array[..., 0] == truth).all())
        if node is None or node.domain:
            return False
        if node.op_type == "Slice":
            return self._starts_at_zero(node) and self._first_is(node.inputs[0], truth)
        if node.op_type not in _COMPARISONS:
            return False
        a, b = self._first(node.inputs[0]), self._first(node.inputs[1])
        return a is not None and b is not None and _COMPARISONS[node.op_type][0 if truth else 1](a, b)

    def _first(self, value: ir.Value | None) -> Interval | None:
        """Where the first entries of all rows lie."""
        array, node = constant_array(value), value.producer() if value is not None else None
        if array is not None:
            return interval_of(array[..., 0] if array.ndim and array.size else array)
        if node is not None and not node.domain:
            if node.op_type == "Range" and (start := constant_array(node.inputs[0])) is not None:
                return interval_of(start)
            if node.op_type == "Unsqueeze" and self._passes_rows(node):
                return self._first(node.inputs[0])
        return self._bounds.of(value)

    def _passes_rows(self, node: ir.Node) -> bool:
        """Whether the rows of a node's first input are the rows of its output, repeated or widened from one entry."""
        if node.op_type in ("Identity", "Expand"):
            return True
        if node.op_type != "Unsqueeze" or not (axes := axes_of(node)):
            return False
        # Without the rank a positive axis may be the last one: 0 never is, on anything that has rows.
        shape = self._bounds.shape(node.outputs[0])
        rank = None if shape is None else len(shape)
        return all(axis != -1 if axis < 0 else rank is not None and axis < rank - 1 for axis in axes)

    @staticmethod
    def _starts_at_zero(node: ir.Node) -> bool:
        starts = constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None
        steps = constant_ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
        return bool(starts is not None and steps is not None and not any(starts) and min(steps) > 0)


def _is_minus_infinity(value: ir.Value | None) -> bool:
    array = constant_array(value)
    return array is not None and bool(array.size and np.isneginf(array.astype(np.float64)).all())
