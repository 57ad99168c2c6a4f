"""Which values hold one number throughout, whatever the inputs: masks that hide nothing, biases of zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import onnx_ir as ir

from toolkit.graph.constants import constant_array
from toolkit.tensors import Array

_T = ir.DataType
_SAMPLE = 1024
_DEEPEST = 80  # far more than lies between a mask and its use, far less than Python's stack holds
# They repeat, leave out or rearrange elements of their first input.
_KEEPS_ELEMENTS = {
    "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Tile", "Slice", "Gather",
}  # fmt: skip
# Types that hold 0 and 1, to which a cast of either gives just that.
_HOLDS_BITS = {
    _T.BOOL, _T.INT8, _T.INT16, _T.INT32, _T.INT64, _T.UINT8, _T.UINT16, _T.UINT32, _T.UINT64,
    _T.FLOAT16, _T.BFLOAT16, _T.FLOAT, _T.DOUBLE,
}  # fmt: skip


@final
class Uniform:
    """The numbers of one model's values; what holds no element at run time holds any number, so nothing rests on it."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, float | None] = {}
        self._depth = 0

    def of(self, value: ir.Value | None) -> float | None:
        """The number that every element of ``value`` equals, 0 and 1 for a bool; None where there may be another.

        Zeros of either sign are 0.
        """
        if value is None or self._depth > _DEEPEST:
            return None
        if value not in self._known:
            self._depth += 1
            self._known[value] = self._find(value)
            self._depth -= 1
        return self._known[value]

    def _find(self, value: ir.Value) -> float | None:
        array, node = constant_array(value), value.producer()
        if array is not None:
            return number_of(array)
        if node is None or node.domain:
            return None
        if node.op_type in _KEEPS_ELEMENTS:
            return self.of(node.inputs[0])
        rule = _RULES.get(node.op_type)
        return rule(self, node) if rule else None


def number_of(array: Array) -> float | None:
    """What all elements of ``array`` equal; None where they differ, there is none, or they are no real numbers."""
    if not array.size or array.dtype.kind == "c":
        return None
    elements = array.reshape(-1)
    # Few weights get past the first comparison.
    same = (elements[:_SAMPLE] == elements[0]).all() and (elements == elements[0]).all()
    return float(elements[0]) if same else None


def _cast(uniform: Uniform, node: ir.Node) -> float | None:
    found = uniform.of(node.inputs[0])
    return found if found in (0, 1) and ir.DataType(node.attributes["to"].as_int()) in _HOLDS_BITS else None


def _not(uniform: Uniform, node: ir.Node) -> float | None:
    found = uniform.of(node.inputs[0])
    return None if found is None else 1 - found


def _where(uniform: Uniform, node: ir.Node) -> float | None:
    truth = uniform.of(node.inputs[0])
    return None if truth is None else uniform.of(node.inputs[1 if truth else 2])


def _constant_of_shape(uniform: Uniform, node: ir.Node) -> float | None:
    given = node.attributes.get("value")
    if given is None:
        return 0.0
    return None if given.is_ref() else number_of(given.as_tensor().numpy())


_RULES: dict[str, Callable[[Uniform, ir.Node], float | None]] = {
    "Cast": _cast, "Not": _not, "Where": _where, "ConstantOfShape": _constant_of_shape,
}  # fmt: skip
