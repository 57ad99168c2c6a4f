"""float16 and bfloat16 in the graph: weights and values in half the bytes, casts where an operator needs float32.

Each value exists in up to two forms, its float32 one and its narrow one; a node reads the form it computes in, and a
cast makes the form that is missing. Inputs and outputs of the model keep their types: nothing around it changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Literal, final

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.graph.edit import Editor, subgraphs
from toolkit.graph.shapes import Shapes, infer
from toolkit.quantizer.calibration.record import CalibrationRecord
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.plan import LeftInFloat
from toolkit.tensors import Array

Half = Literal["float16", "bfloat16"]
OPSETS: Mapping[Half, int] = {"float16": 7, "bfloat16": 22}
"""float16 is in every opset; convolutions and poolings take bfloat16 from 22 on."""

_TYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
_NUMPY: Mapping[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_SCHEMA_TYPES = {"float16": "tensor(float16)", "bfloat16": "tensor(bfloat16)"}
_FLOAT = "tensor(float)"
_LARGEST_HALF = 65504.0

# Operators whose results or inner sums leave float16's range or lose their digits in usual models: sums of squares and
# long sums. Positions and sizes, where a rounding moves a pixel or a row, stay float32 in both.
# Source: onnxruntime/transformers/float16.py DEFAULT_OP_BLOCK_LIST, and squares added by hand.
_OVERFLOWING = frozenset(
    ("Pow", "ReduceSumSquare", "ReduceL2", "LpNormalization", "ReduceLogSumExp", "ReduceProd", "ReduceSum", "CumSum",
     "LpPool", "GlobalLpPool", "Exp", "LRN")
)  # fmt: skip
_POSITIONS = frozenset(
    ("Range", "Resize", "Upsample", "RoiAlign", "MaxRoiPool", "NonMaxSuppression", "TopK", "AffineGrid", "GridSample",
     "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "EyeLike",
     "STFT", "DFT", "MelWeightMatrix", "QuantizeLinear", "DequantizeLinear")
)  # fmt: skip


def lower_half(model: ir.Model, half: Half, *, record: CalibrationRecord | None = None) -> Lowered:
    """A copy of ``model`` (prepared, of at least ``OPSETS[half]``) that computes in ``half``.

    Args:
        record: a calibration; nodes that it saw leave float16's range stay in float32.
    """
    copy = model.clone()
    converter = _Converter(copy, half, infer(copy), record)
    for node in list(copy.graph):
        converter.convert(node)
    converter.finish()
    notes = []
    if converter.clipped:
        notes.append(f"{converter.clipped} constants beyond ±{_LARGEST_HALF:.0f} were cut to it")
    return Lowered(copy, half, half, dict(converter.done), tuple(converter.left), tuple(notes))


@final
class _Converter:
    def __init__(self, model: ir.Model, half: Half, shapes: Shapes, record: CalibrationRecord | None) -> None:
        self._model, self._half, self._shapes, self._record = model, half, shapes, record
        self._edit = Editor(model)
        self._narrow: dict[ir.Value, ir.Value] = {}
        self._wide: dict[ir.Value, ir.Value] = {}
        self.done: Counter[str] = Counter()
        self.left: list[LeftInFloat] = []
        self.clipped = 0

    def convert(self, node: ir.Node) -> None:
        """Let one node compute in the narrow type, if it can; either way it reads what it needs."""
        touched = [value for value in (*node.inputs, *node.outputs) if value is not None and self._is_float(value)]
        if not touched and not subgraphs(node):
            return
        reason = self._refusal(node)
        if reason is not None:
            self._widen_inputs(node)
            self.left.append(LeftInFloat(node.name or "", node.op_type, reason))
            return
        for index, value in enumerate(node.inputs):
            if value is not None and self._is_float(value) and takes(node, index, self._half, self._opset):
                node.replace_input_with(index, self._narrowed(value, node))
        for index, value in enumerate(node.outputs):
            if self._is_float(value) and gives(node, index, self._half, self._opset):
                self._narrow_output(value)
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(_TYPES[self._half]))
        if node.op_type == "ConstantOfShape":
            value_attribute = node.attributes.get("value")
            fill = np.zeros(1, np.float32) if value_attribute is None else value_attribute.as_tensor().numpy()
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(self._cast(fill)))
        self.done[node.op_type] += 1

    @property
    def _opset(self) -> int:
        return int(self._model.opset_imports.get("", 0))

    def _is_float(self, value: ir.Value) -> bool:
        if value in self._narrow.values():
            return False
        known = self._shapes.get(value)
        dtype = value.const_value.dtype if value.const_value is not None else known.dtype if known else value.dtype
        return dtype is ir.DataType.FLOAT

    def _refusal(self, node: ir.Node) -> str | None:
        """Why ``node`` has to compute in float32."""
        if subgraphs(node):
            return "has subgraphs"
        if node.domain:
            return f"is of domain {node.domain}"
        if node.op_type in _POSITIONS:
            return "computes positions, sizes or random numbers"
        if node.op_type in _OVERFLOWING and self._half == "float16":
            return "overflows float16 easily"
        if not _has_type(node, self._half, self._opset):
            return f"has no {self._half} form in opset {self._opset}"
        return self._overflow(node) if self._half == "float16" else None

    def _overflow(self, node: ir.Node) -> str | None:
        if self._record is None:
            return None
        for value in (*node.inputs, *node.outputs):
            seen = None if value is None else self._record.distribution(value.name or "")
            if seen is not None and max(abs(seen.lowest), abs(seen.highest)) > _LARGEST_HALF / 2:
                return "calibration saw values near the end of float16's range"
        return None

    def _narrowed(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """The narrow form of ``value``."""
        if value not in self._narrow:
            tensor = value.const_value if not value.is_graph_input() else None
            if tensor is not None:
                self._narrow[value] = self._edit.constant(
                    self._cast(tensor.numpy()), f"{value.name}_{self._half}", reader
                )
            else:
                self._narrow[value] = self._cast_behind(value, _TYPES[self._half], self._half)
        return self._narrow[value]

    def _narrow_output(self, value: ir.Value) -> None:
        """Make ``value`` itself narrow; whoever needs float32 (a model output does) reads a cast of it."""
        if value.is_graph_output():
            name = value.name
            wide = self._behind(value, "Cast", {"to": int(ir.DataType.FLOAT)}, f"{name}_float32")
            for index, output in enumerate(self._model.graph.outputs):
                if output is value:
                    wide.type, wide.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
                    self._model.graph.outputs[index] = wide
            value.name, wide.name = self._edit.fresh(f"{name}_{self._half}"), name
            self._wide[value] = wide
        value.type = ir.TensorType(_TYPES[self._half])
        self._narrow[value] = value

    def _widen_inputs(self, node: ir.Node) -> None:
        """Let a float32 node, and the subgraphs in it, read float32 forms."""
        nodes = [node]
        while nodes:
            reader = nodes.pop()
            for index, value in enumerate(reader.inputs):
                if value is not None and self._narrow.get(value) is value:
                    reader.replace_input_with(index, self._widened(value))
            nodes += [inner for graph in subgraphs(reader) for inner in graph]

    def _widened(self, value: ir.Value) -> ir.Value:
        if value not in self._wide:
            self._wide[value] = self._cast_behind(value, ir.DataType.FLOAT, "float32")
        return self._wide[value]

    def _cast_behind(self, value: ir.Value, dtype: ir.DataType, suffix: str) -> ir.Value:
        return self._behind(value, "Cast", {"to": int(dtype)}, f"{value.name}_{suffix}")

    def _behind(self, value: ir.Value, op_type: str, attributes: Mapping[str, Any], name: str) -> ir.Value:
        graph = self._model.graph
        output = ir.Value(name=self._edit.fresh(name))
        node = ir.node(op_type, [value], attributes, outputs=[output], name=self._edit.node_name(name))
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(producer, node)
        return output

    def _cast(self, array: Array) -> Array:
        if array.dtype != np.float32:
            return array
        if self._half == "float16":
            beyond = np.isfinite(array) & (np.abs(array) > _LARGEST_HALF)
            self.clipped += int(beyond.sum())
            array = np.where(beyond, np.copysign(np.float32(_LARGEST_HALF), array), array)
        return array.astype(_NUMPY[self._half])

    def finish(self) -> None:
        common.RemoveUnusedNodesPass()(self._model)


def _allowed(node: ir.Node, index: int, opset: int, *, output: bool) -> Collection[str]:
    """Types that the operator's schema allows for one operand; the last formal of a variadic one stands for all."""
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    formals = schema.outputs if output else schema.inputs
    return set(formals[min(index, len(formals) - 1)].types)


def takes(node: ir.Node, index: int, half: Half, opset: int) -> bool:
    """Whether operand ``index`` may be of type ``half``; the scales of a Resize, for one, may not."""
    return _SCHEMA_TYPES[half] in _allowed(node, index, opset, output=False)


def gives(node: ir.Node, index: int, half: Half, opset: int) -> bool:
    """Whether output ``index`` is of type ``half`` when the inputs are; the mean of a LayerNormalization is not."""
    return _SCHEMA_TYPES[half] in _allowed(node, index, opset, output=True)


def _has_type(node: ir.Node, half: Half, opset: int) -> bool:
    """Whether the operator computes in ``half``: its first floating input and its first output may be of that type."""
    try:
        formals = [_allowed(node, index, opset, output=False) for index, value in enumerate(node.inputs) if value]
        formals = [types for types in formals if _FLOAT in types][:1]
        outputs = _allowed(node, 0, opset, output=True)
    except onnx.defs.SchemaError:
        return False
    return all(_SCHEMA_TYPES[half] in types for types in (*formals, *([outputs] if _FLOAT in outputs else [])))
