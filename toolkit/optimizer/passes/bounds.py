"""How large values can get: intervals derived from weights, types and the operators that bound what they return.

The premise throughout: what a normalization reads is finite. From there on nothing is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
import onnx_ir as ir

from toolkit.graph.constants import constant_array
from toolkit.graph.shapes import Shapes
from toolkit.tensors import Array

_T = ir.DataType
# Largest finite number. Source: IEEE 754; bfloat16 is float32 cut to 8 bits of significand.
LARGEST = {
    _T.FLOAT16: 65504.0,
    _T.BFLOAT16: (2 - 2.0**-7) * 2.0**127,
    _T.FLOAT: (2 - 2.0**-23) * 2.0**127,
    _T.DOUBLE: float(np.finfo(np.float64).max),
}
# Sums of products are rounded at each step; long ones stay well within this.
_ROUNDING = 1.01
# A normalized row is at most sqrt(length), but engines that take the variance as a difference of squares lose digits
# where the mean is large, and return more. Nobody gets near this factor.
_NORMALIZATION_SLACK = 2.0**20
_DEEPEST = 80  # far more than lies between a normalization and the scores, far less than Python's stack holds


class Interval(NamedTuple):
    """All values lie in it, and are finite."""

    low: float
    high: float

    @property
    def size(self) -> float:
        return max(abs(self.low), abs(self.high))


_KEEPS_VALUES = {
    "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Slice", "Split", "Gather",
}  # fmt: skip
_FIXED = {
    "Softmax": Interval(0, 1), "Sigmoid": Interval(0, 1), "Tanh": Interval(-1, 1), "Erf": Interval(-1, 1),
    "Sin": Interval(-1, 1), "Cos": Interval(-1, 1),
}  # fmt: skip


def _products(a: Interval, b: Interval) -> Interval:
    corners = [x * y for x in a for y in b]
    return Interval(min(corners), max(corners))


_ARITHMETIC: dict[str, Callable[[Interval, Interval], Interval]] = {
    "Add": lambda a, b: Interval(a.low + b.low, a.high + b.high),
    "Sub": lambda a, b: Interval(a.low - b.high, a.high - b.low),
    "Mul": _products,
}


@final
class Bounds:
    """Intervals of one model's values; :meth:`of` answers None where no finite one is known."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._known: dict[ir.Value, Interval | None] = {}
        self._depth = 0

    def of(self, value: ir.Value | None) -> Interval | None:
        if value is None or self._depth > _DEEPEST:
            return None
        if value not in self._known:
            self._depth += 1
            self._known[value] = self._find(value)
            self._depth -= 1
        return self._known[value]

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        if value is None:
            return None
        found = self._shapes.get(value)
        return (found.dtype if found else None) or value.dtype

    def _find(self, value: ir.Value) -> Interval | None:
        array, node = constant_array(value), value.producer()
        if array is not None:
            return interval_of(array)
        dtype = self.dtype(value)
        if node is None or node.domain:
            return _of_type(dtype)
        found = self._computed(node, dtype)
        return found if found is not None else _of_type(dtype)

    def _computed(self, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
        kind = node.op_type
        if kind in _KEEPS_VALUES:
            return self.of(node.inputs[0])
        if kind in _FIXED:
            # A softmax of NaN is NaN: what it reads must be finite too, as for all the others.
            return _FIXED[kind] if self.of(node.inputs[0]) is not None else None
        if kind in _ARITHMETIC:
            a, b = self.of(node.inputs[0]), self.of(node.inputs[1])
            return _rounded(_ARITHMETIC[kind](a, b), dtype) if a and b else None
        rule = _RULES.get(kind)
        return rule(self, node, dtype) if rule else None

    def shape(self, value: ir.Value | None) -> ir.Shape | None:
        found = self._shapes.get(value) if value is not None else None
        return found.shape if found else None

    def length(self, value: ir.Value | None, axis: int) -> int | None:
        """Size of one axis where it is fixed."""
        array = constant_array(value)
        shape = array.shape if array is not None else self.shape(value)
        if shape is None or not -len(shape) <= axis < len(shape):
            return None
        size = shape[axis]
        return size if isinstance(size, int) and size >= 0 else None


def interval_of(array: Array) -> Interval | None:
    """Least and greatest element; None where one is not finite, or there is none."""
    if not array.size:
        return None
    found = Interval(float(array.min()), float(array.max()))
    return found if math.isfinite(found.low) and math.isfinite(found.high) else None


def _of_type(dtype: ir.DataType | None) -> Interval | None:
    """What any value of the type obeys: nothing for floats, which may be infinite."""
    if dtype == _T.BOOL:
        return Interval(0, 1)
    if dtype is not None and dtype.is_integer() and dtype.bitwidth >= 8:
        limits = np.iinfo(dtype.numpy())
        return Interval(float(limits.min), float(limits.max))
    return None


def _rounded(found: Interval, dtype: ir.DataType | None) -> Interval | None:
    """``found`` where ``dtype`` holds it. Rounding to nearest is monotonic: what ends at the largest number stays."""
    limit = LARGEST.get(dtype) if dtype is not None else None
    # Integers wrap around instead: the interval of their type holds anyway.
    return None if limit is None or not found.size <= limit else found


def _sum_of_products(size: float, dtype: ir.DataType | None) -> Interval | None:
    return _rounded(Interval(-size * _ROUNDING, size * _ROUNDING), dtype)


def _cast(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    found = bounds.of(node.inputs[0])
    return _rounded(found, dtype) if found else None


def _where(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    return _union([bounds.of(value) for value in node.inputs[1:3]])


def _concat(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    return _union([bounds.of(value) for value in node.inputs])


def _union(parts: list[Interval | None]) -> Interval | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    return Interval(min(part.low for part in known), max(part.high for part in known))


def _neg(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    found = bounds.of(node.inputs[0])
    return _rounded(Interval(-found.high, -found.low), dtype) if found else None


def _relu(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    found = bounds.of(node.inputs[0])
    return Interval(max(found.low, 0), max(found.high, 0)) if found else None


def _div(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    a, b = bounds.of(node.inputs[0]), bounds.of(node.inputs[1])
    if a is None or b is None or b.low <= 0 <= b.high:
        return None
    return _rounded(_products(a, Interval(1 / b.high, 1 / b.low)), dtype)


def _matmul(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    return _product_sum(bounds, node, dtype, right_axis=-2)


def _gemm(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    if node.attributes.get_int("transA", 0):
        return None
    right_axis = -1 if node.attributes.get_int("transB", 0) else -2
    found = _product_sum(bounds, node, dtype, right_axis)
    added = bounds.of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else Interval(0, 0)
    if found is None or added is None:
        return None
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    return _sum_of_products(found.size * abs(alpha) + added.size * abs(beta), dtype)


def _product_sum(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None, right_axis: int) -> Interval | None:
    left, right = node.inputs[:2]
    a, b = bounds.of(left), bounds.of(right)
    length = bounds.length(left, -1)
    length = bounds.length(right, right_axis) if length is None else length
    return _sum_of_products(a.size * b.size * length, dtype) if a and b and length else None


def _layer_normalization(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    """At most sqrt(length) times the scale, plus the bias, whatever comes in."""
    scale, bias = bounds.of(node.inputs[1]), Interval(0, 0)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = bounds.of(node.inputs[2])
        if found is None:
            return None
        bias = found
    array = constant_array(node.inputs[1])
    if scale is None or array is None:
        return None
    size = math.sqrt(array.size) * _NORMALIZATION_SLACK * scale.size + bias.size
    return _sum_of_products(size, dtype)


def _clip(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    limits = [bounds.of(value) if value is not None else None for value in node.inputs[1:3]]
    return _union(limits) if len(limits) == 2 and bounds.of(node.inputs[0]) else None


def _range(bounds: Bounds, node: ir.Node, dtype: ir.DataType | None) -> Interval | None:
    start, step = constant_array(node.inputs[0]), constant_array(node.inputs[2])
    whole = _of_type(dtype)
    if start is None or step is None or whole is None or step < 0:
        return None
    return Interval(float(start), whole.high)


_RULES: dict[str, Callable[[Bounds, ir.Node, ir.DataType | None], Interval | None]] = {
    "Cast": _cast, "Where": _where, "Concat": _concat, "Neg": _neg, "Relu": _relu, "Div": _div, "MatMul": _matmul,
    "Gemm": _gemm, "LayerNormalization": _layer_normalization, "Clip": _clip, "Range": _range,
}  # fmt: skip
