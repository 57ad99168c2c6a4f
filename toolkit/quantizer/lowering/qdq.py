"""Static int8: writes the Q/DQ pairs that a plan asks for, with ranges from a calibration.

ONNX Runtime's quantizer is not used for it: its pairs sit on tensors, so that a residual sum reads what was rounded for
a MatMul beside it, and one stands between a MatMul and its bias. Here a pair belongs to those that asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, final

import msgspec
import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit import machine
from toolkit.graph.edit import Editor, graph_of, replace
from toolkit.providers.placement import Activations, Variant, Weights
from toolkit.quantizer.calibration.observers import Range
from toolkit.quantizer.plan import PlacedNode, Plan, constant
from toolkit.tensors import Array

INT32_LIMIT = 2.0**31 - 256
"""The largest float32 that fits into int32."""


class Scale(msgspec.Struct, frozen=True):
    """real = (stored - zero) * step."""

    step: float
    zero: int


class _Pair(NamedTuple):
    """Values with a scale and a zero point: what a Q or a DQ reads."""

    step: ir.Value
    zero: ir.Value


def activation_scale(bounds: Range, kind: Activations) -> Scale:
    """Scale for values in ``bounds``, which hold zero: zero is exact, since padding and Relu make so many."""
    low, high = bounds
    if kind.symmetric:
        return Scale(float(np.float32(max(-low, high) / 127)), 0)
    step = float(np.float32((high - low) / 255))
    zero = round(-low / step) if step else 0
    return Scale(step, zero if kind.type == "uint8" else zero - 128)


def write_qdq(model: ir.Model, plan: Plan, ranges: Mapping[str, Range]) -> None:
    """Change ``model``, which ``plan`` was made for, so that it is quantized.

    Args:
        ranges: per tensor in ``plan.tensors``.
    """
    writer = _Writer(model, plan, ranges)
    for placed in plan.nodes:
        writer.store_weight(placed)
    writer.place_pairs()
    common.RemoveUnusedNodesPass()(model)


@final
class _Writer:
    def __init__(self, model: ir.Model, plan: Plan, ranges: Mapping[str, Range]) -> None:
        self._model, self._plan, self._ranges = model, plan, ranges
        self._edit = Editor(model)
        self._variant: Variant = plan.variant
        self._pairs: dict[ir.Value, _Pair] = {}
        self._weights: dict[tuple[ir.Value, int | None, bytes], tuple[ir.Value, Array]] = {}

    # weights and biases

    def store_weight(self, placed: PlacedNode) -> None:
        """Replace weight and bias of one node by int8 and int32 constants behind a DQ."""
        node, rule = placed.node, placed.rule
        if rule.weight is None:
            return
        weight = node.inputs[rule.weight]
        tensor = constant(weight)
        assert weight is not None and tensor is not None, "the plan checked that the weight is a constant"
        array = tensor.numpy()
        axis = output_axis(node, rule.weight_axis, array.ndim) if self._variant.weights.per_channel else None
        steps = weight_steps(array, axis, self._variant.weights)
        bias = node.inputs[rule.bias] if rule.bias is not None and rule.bias < len(node.inputs) else None
        if bias is not None:
            steps = self._widened(steps, bias, placed)
        node.replace_input_with(rule.weight, self._stored_weight(weight, array, axis, steps, node))
        if bias is not None and rule.bias is not None:
            node.replace_input_with(rule.bias, self._stored_bias(bias, steps, placed))

    def _input_step(self, placed: PlacedNode) -> float:
        value = placed.activations[placed.rule.activations[0]]
        return self._scale(value).step

    def _widened(self, steps: Array, bias: ir.Value, placed: PlacedNode) -> Array:
        """Weight steps that are wide enough for the bias to fit int32 in the product of both scales."""
        tensor = constant(bias)
        assert tensor is not None
        largest = np.abs(tensor.numpy().reshape(-1).astype(np.float64))
        least = (largest.max(initial=0.0) if steps.ndim == 0 else largest) / INT32_LIMIT / self._input_step(placed)
        return np.asarray(np.maximum(steps, least), np.float32)

    def _stored_weight(
        self, weight: ir.Value, array: Array, axis: int | None, steps: Array, reader: ir.Node
    ) -> ir.Value:
        key = (weight, axis, steps.tobytes())
        if key not in self._weights:
            stored = quantized(array, steps, axis)
            self._weights[key] = (self._constant_dq(stored, steps, axis, f"{weight.name}", reader), steps)
        return self._weights[key][0]

    def _stored_bias(self, bias: ir.Value, steps: Array, placed: PlacedNode) -> ir.Value:
        tensor = constant(bias)
        assert tensor is not None
        flat = tensor.numpy().reshape(-1)
        product = (steps.astype(np.float64) * self._input_step(placed)).astype(np.float32)
        stored = np.round(flat / product.astype(np.float64)).astype(np.int32)
        return self._constant_dq(stored, product, 0 if product.ndim else None, f"{bias.name}", placed.node)

    def _constant_dq(self, stored: Array, steps: Array, axis: int | None, name: str, reader: ir.Node) -> ir.Value:
        # All weights' DQs stand in front of everything: shared ones have to precede each of their readers.
        anchor = graph_of(reader)[0]
        zeros = np.zeros(steps.shape, stored.dtype)
        operands = [
            self._edit.constant(stored, f"{name}_quantized", reader),
            self._edit.constant(steps, f"{name}_scale", reader),
            self._edit.constant(zeros, f"{name}_zero_point", reader),
        ]
        attributes = {} if axis is None else {"axis": axis}
        return self._edit.before(anchor, "DequantizeLinear", operands, attributes, name=f"{name}_dequantized")

    # activations

    def place_pairs(self) -> None:
        """Put Q/DQ pairs on results, for all their readers, and on what else the nodes read, for them alone.

        What was moved from a result counts as one: a second rounding in the same scale changes nothing for others.
        """
        results = [placed.result for placed in self._plan.nodes if placed.result is not None]
        covered = dict.fromkeys((*results, *self._plan.scale_of))
        for value in covered:
            self._cover_result(value)
        dequantized: dict[ir.Value, ir.Value] = {}
        for placed in self._plan.nodes:
            for index, value in placed.activations.items():
                if value in covered:
                    continue
                if value not in dequantized:
                    dequantized[value] = self._insert(value)[1]
                placed.node.replace_input_with(index, dequantized[value])

    def _cover_result(self, value: ir.Value) -> None:
        stored, dequantized = self._insert(value)
        replace(value, dequantized)
        quantize = stored.producer()
        assert quantize is not None
        quantize.replace_input_with(0, value)  # replace() redirected the Q as well

    def _insert(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A Q/DQ pair right behind ``value``: what comes out of the Q, and out of the DQ."""
        pair = self._pair(value)
        quantize = self._node("QuantizeLinear", [value, *pair], f"{value.name}_quantized")
        dequantize = self._node("DequantizeLinear", [quantize.outputs[0], *pair], f"{value.name}_dequantized")
        producer = value.producer()
        if producer is None:
            graph = self._model.graph
            graph.insert_before(graph[0], [quantize, dequantize])
        else:
            graph_of(producer).insert_after(producer, [quantize, dequantize])
        return quantize.outputs[0], dequantize.outputs[0]

    def _node(self, op_type: str, inputs: list[ir.Value], name: str) -> ir.Node:
        output = ir.Value(name=self._edit.fresh(name))
        return ir.node(op_type, inputs, outputs=[output], name=self._edit.node_name(name))

    def _pair(self, value: ir.Value) -> _Pair:
        source = self._plan.scale_of.get(value, value)
        if source not in self._pairs:
            scale = self._scale(source)
            zero_type = np.uint8 if self._variant.activations.type == "uint8" else np.int8
            anchor = self._model.graph[0]
            self._pairs[source] = _Pair(
                self._edit.constant(np.array(scale.step, np.float32), f"{source.name}_scale", anchor),
                self._edit.constant(np.array(scale.zero, zero_type), f"{source.name}_zero_point", anchor),
            )
        return self._pairs[source]

    def _scale(self, value: ir.Value) -> Scale:
        source = self._plan.scale_of.get(value, value)
        return activation_scale(self._ranges[source.name or ""], self._variant.activations)


def output_axis(node: ir.Node, axis: int, rank: int) -> int:
    """The weight's axis that counts output channels."""
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return axis % rank


def weight_steps(array: Array, axis: int | None, kind: Weights) -> Array:
    """Scale per channel, or one for all: ``(channels,)`` or ``()`` float32. Channels of zeros get 1."""
    others = None if axis is None else tuple(other for other in range(array.ndim) if other != axis)
    largest = np.abs(array).max(axis=others).astype(np.float32)
    full = not kind.full_range_needs or bool(set(kind.full_range_needs) & set(machine.cpu_features()))
    steps = largest / np.float32(127 if full else 63)
    return np.asarray(np.where(steps > np.finfo(np.float32).tiny, steps, 1.0), np.float32)


def quantized(array: Array, steps: Array, axis: int | None) -> Array:
    """``array`` as int8 in the given steps."""
    shaped = steps if axis is None else steps.reshape([-1 if other == axis else 1 for other in range(array.ndim)])
    return np.clip(np.round(array / shaped), -127, 127).astype(np.int8)
