"""Casts that change no value."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.edit import remove, replace
from toolkit.graph.shapes import infer
from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass

_T = ir.DataType
_SIGNED = (_T.INT8, _T.INT16, _T.INT32, _T.INT64)
_UNSIGNED = (_T.UINT8, _T.UINT16, _T.UINT32, _T.UINT64)
_FLOATS = (_T.FLOAT16, _T.BFLOAT16, _T.FLOAT, _T.DOUBLE)
_BITS = dict(zip(_SIGNED + _UNSIGNED, (8, 16, 32, 64) * 2, strict=True))
# Bits of integer that a float type holds exactly: its significand. Source: IEEE 754; bfloat16 has 8.
_EXACT_BITS = {_T.FLOAT16: 11, _T.BFLOAT16: 8, _T.FLOAT: 24, _T.DOUBLE: 53}


def lossless(source: ir.DataType, target: ir.DataType) -> bool:
    """Whether every value of ``source`` exists in ``target``; text and 8-bit floats are left out: they have rules."""
    if source == target:
        return True
    if source == _T.BOOL:
        return target in (*_SIGNED, *_UNSIGNED, *_FLOATS)
    if source in _FLOATS:
        return bool(target == _T.DOUBLE or (target == _T.FLOAT and source != _T.DOUBLE))
    if source in _SIGNED:
        wider = _SIGNED[_SIGNED.index(source) :]
        return target in wider or _BITS[source] - 1 <= _EXACT_BITS.get(target, 0)
    if source in _UNSIGNED:
        place = _UNSIGNED.index(source)
        return target in _UNSIGNED[place:] + _SIGNED[place + 1 :] or _BITS[source] <= _EXACT_BITS.get(target, 0)
    return False


@final
class RemoveCasts(Pass):
    """Remove casts to the type a value has already, and the first of two where it loses nothing.

    A cast that loses something, such as float32 to float16 and back, is a rounding that the model asks for: it stays.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        casts = [node for graph in every_graph(model) for node in graph if node.op_type == "Cast" and not node.domain]
        types = {value: found.dtype for value, found in infer(model).items()} if casts else {}
        for node in casts:
            self._shorten(node, types, changes)
            self._drop(node, types, changes)
        return model

    @staticmethod
    def _shorten(node: ir.Node, types: dict[ir.Value, ir.DataType | None], changes: Changes) -> None:
        """Cast B(Cast A(x)) becomes Cast B(x) where A holds every value of x."""
        middle = node.inputs[0]
        first = middle.producer() if middle is not None else None
        if first is None or first.op_type != "Cast" or first.domain or first.inputs[0] is None:
            return
        origin, through = types.get(first.inputs[0]), ir.DataType(first.attributes["to"].as_int())
        target = ir.DataType(node.attributes["to"].as_int())
        if origin is None or target not in (*_FLOATS, *_SIGNED, *_UNSIGNED, _T.BOOL):
            return
        if not lossless(origin, through):
            changes.skip("the first of two casts rounds")
            return
        node.replace_input_with(0, first.inputs[0])
        changes.made(f"{origin.name} to {through.name} to {target.name} before {node.outputs[0].name}")

    @staticmethod
    def _drop(node: ir.Node, types: dict[ir.Value, ir.DataType | None], changes: Changes) -> None:
        source, output = node.inputs[0], node.outputs[0]
        if source is None or types.get(source) != ir.DataType(node.attributes["to"].as_int()):
            return
        label = f"{output.name}, which is {types[source]} already"
        if not replace(output, source):
            changes.skip("it names an output that its input cannot stand for")
            return
        remove(node)
        changes.made(label)
