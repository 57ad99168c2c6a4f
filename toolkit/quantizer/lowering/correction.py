"""Bias correction: what quantizing moves the mean of each output channel by, taken off the bias again.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (ICCV 2019), section 4.2,
in its empirical form: each node runs beside a twin that reads the same float input, rounded, and rounded weights. A
node's correction so depends on no other node's, and holds whichever of them stay in float.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from toolkit.data import Dataset
from toolkit.evaluator.stepping import steps
from toolkit.graph.edit import Editor, graph_of
from toolkit.graph.facts import input_specs
from toolkit.providers import registry
from toolkit.providers.placement import Variant
from toolkit.quantizer.calibration.observers import Range
from toolkit.quantizer.lowering.qdq import activation_scale, output_axis, quantized, weight_steps
from toolkit.quantizer.plan import PlacedNode, Plan, constant
from toolkit.tensors import Array

SAMPLES = 64
"""A mean needs fewer samples than a range does."""
_BATCH = 4  # what the engine holds grows with it
_AXES_ARE_AN_INPUT = 18  # of ReduceMean, from this opset on
Shifts = Mapping[str, Array]
"""By node: quantized minus float, the mean per output channel, ``(channels,) float32``."""


class BiasHome(NamedTuple):
    """Where a node's correction goes: an operand of ``node``, by number."""

    node: ir.Node
    operand: int


def mean_shifts(model: ir.Model, plan: Plan, ranges: Mapping[str, Range], data: Dataset) -> dict[str, Array]:
    """What quantizing moves each channel of each weighted node by, over the first :data:`SAMPLES` of ``data``.

    Args:
        model: the float model that ``plan`` was made for; it is changed.
        ranges: per tensor in ``plan.tensors``.

    Raises:
        ToolkitError: the model does not run on the samples.
    """
    outputs = _add_twins(model, plan, ranges)
    if not outputs:
        return {}
    totals: dict[str, Array] = {}
    count = 0
    with tempfile.TemporaryDirectory(prefix="toolkit-correction-") as folder:
        path = Path(folder) / "twins.onnx"
        ir.save(model, path, external_data=f"{path.name}.data")
        with registry.provider("cpu").open(path) as session:
            few = data.take(0, SAMPLES).batched(min(data.batch_size, _BATCH))
            for batch, found in steps(session, few, input_specs(model)):
                count += batch.count
                for node, output in outputs.items():
                    mean = found[output].reshape(-1).astype(np.float64)
                    totals[node] = totals.get(node, np.float64(0)) + mean * batch.count
    means = {node: (total / max(1, count)).astype(np.float32) for node, total in totals.items()}
    return {node: mean for node, mean in means.items() if np.isfinite(mean).all()}


def _add_twins(model: ir.Model, plan: Plan, ranges: Mapping[str, Range]) -> dict[str, str]:
    """Put a rounded twin beside each weighted node; returns the new output that says its shift, by node."""
    edit = Editor(model)
    outputs: dict[str, str] = {}
    for placed in plan.nodes:
        if placed.rule.weight is None or bias_home(placed.node) is None:
            continue
        shift = _add_twin(edit, placed, plan, ranges)
        model.graph.outputs.append(shift)
        outputs[placed.node.name or ""] = shift.name or ""
    return outputs


def _add_twin(edit: Editor, placed: PlacedNode, plan: Plan, ranges: Mapping[str, Range]) -> ir.Value:
    node, rule, variant = placed.node, placed.rule, plan.variant
    assert rule.weight is not None
    operands = list(node.inputs)
    for index, value in placed.activations.items():
        source = plan.scale_of.get(value, value)
        operands[index] = _rounded(edit, value, ranges[source.name or ""], variant, node)
    weight = constant(node.inputs[rule.weight])
    assert weight is not None, "the plan checked that the weight is a constant"
    operands[rule.weight] = edit.constant(_rounded_weight(weight.numpy(), placed, variant), f"{node.name}_twin", node)
    twin = edit.before(node, node.op_type, operands, dict(node.attributes), name=f"{node.name}_rounded")
    result = node.outputs[0]
    difference = ir.node("Sub", [twin, result], name=edit.node_name(f"{node.name}_difference"))
    graph_of(node).insert_after(node, difference)
    difference.outputs[0].name = edit.fresh(f"{node.name}_difference")
    return _channel_means(edit, difference, node)


def _rounded(edit: Editor, value: ir.Value, bounds: Range, variant: Variant, node: ir.Node) -> ir.Value:
    scale = activation_scale(bounds, variant.activations)
    zero = np.array(scale.zero, np.uint8 if variant.activations.type == "uint8" else np.int8)
    pair = [
        edit.constant(np.array(scale.step, np.float32), f"{node.name}_twin_scale", node),
        edit.constant(zero, f"{node.name}_twin_zero", node),
    ]
    stored = edit.before(node, "QuantizeLinear", [value, *pair], name=f"{node.name}_twin_stored")
    return edit.before(node, "DequantizeLinear", [stored, *pair], name=f"{node.name}_twin_input")


def _rounded_weight(array: Array, placed: PlacedNode, variant: Variant) -> Array:
    axis = output_axis(placed.node, placed.rule.weight_axis, array.ndim) if variant.weights.per_channel else None
    used = weight_steps(array, axis, variant.weights)
    shaped = used if axis is None else used.reshape([-1 if other == axis else 1 for other in range(array.ndim)])
    return np.asarray(quantized(array, used, axis) * shaped, np.float32)


def _channel_means(edit: Editor, difference: ir.Node, node: ir.Node) -> ir.Value:
    """Mean over all axes but the channels'; the others stay, of size 1, since the first counts samples."""
    last, axes = difference, _other_axes(node)
    if node.op_type == "MatMul":  # its rank is not always known, that of its rows is
        flat = edit.constant(np.array([-1, _channels(node)], np.int64), f"{node.name}_rows", node)
        last, axes = ir.node("Reshape", [difference.outputs[0], flat], name=edit.node_name(f"{node.name}_rows")), [0]
        graph_of(node).insert_after(difference, last)
        last.outputs[0].name = edit.fresh(f"{node.name}_rows")
    mean = _reduce_mean(edit, last.outputs[0], axes, node)
    graph_of(node).insert_after(last, mean)
    result = mean.outputs[0]
    result.name = edit.fresh(f"{node.name}_shift")
    result.type = ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape([_channels(node) if axis not in axes else 1 for axis in range(len(axes) + 1)])
    return result


def _reduce_mean(edit: Editor, value: ir.Value, axes: list[int], node: ir.Node) -> ir.Node:
    name = edit.node_name(f"{node.name}_mean")
    if edit.model.opset_imports.get("", 0) < _AXES_ARE_AN_INPUT:
        return ir.node("ReduceMean", [value], {"axes": axes, "keepdims": 1}, name=name)
    operand = edit.constant(np.array(axes, np.int64), f"{node.name}_axes", node)
    return ir.node("ReduceMean", [value, operand], {"keepdims": 1}, name=name)


def _other_axes(node: ir.Node) -> list[int]:
    weight = constant(node.inputs[1])
    assert weight is not None
    return [0] if node.op_type == "Gemm" else [axis for axis in range(len(weight.shape)) if axis != 1]


def _channels(node: ir.Node) -> int:
    weight = constant(node.inputs[1])
    assert weight is not None
    if node.op_type == "MatMul":
        return int(weight.shape[-1])
    transposed = node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)
    return int(weight.shape[1 if transposed else 0])


# applying


def bias_home(node: ir.Node) -> BiasHome | None:
    """The constant that takes the correction; None where a node would have to be added for it.

    Conv and Gemm take a bias as an operand; a MatMul's is the constant of the Add behind it. None is given to those
    without: on OpenVINO the biases of a MobileNetV2 that had none took 5 % of its time.
    """
    if node.op_type in ("Conv", "Gemm"):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return BiasHome(node, 2) if _sizes(bias) in ([_channels(node)], []) else None
    if node.op_type != "MatMul" or constant(node.inputs[1]) is None:
        return None
    readers = list(node.outputs[0].uses())
    if node.outputs[0].is_graph_output() or len(readers) != 1:
        return None
    add = readers[0].node
    if add.op_type != "Add" or add.domain or add.graph is not node.graph:
        return None
    index = 1 - readers[0].idx
    return BiasHome(add, index) if _sizes(add.inputs[index]) == [_channels(node)] else None


def _sizes(value: ir.Value | None) -> list[int] | None:
    tensor = constant(value)
    return None if tensor is None or tensor.dtype is not ir.DataType.FLOAT else [int(size) for size in tensor.shape]


def correct_biases(model: ir.Model, plan: Plan, shifts: Shifts) -> int:
    """Take ``shifts`` off the biases of the nodes in ``plan``; returns how many were corrected."""
    edit = Editor(model)
    count = 0
    for placed in plan.nodes:
        shift = shifts.get(placed.node.name or "")
        home = bias_home(placed.node)
        if shift is None or home is None or placed.rule.weight is None:
            continue
        _correct(edit, home, shift)
        count += 1
    return count


def _correct(edit: Editor, home: BiasHome, shift: Array) -> None:
    """Operands are replaced, not changed: another node may read the same constant."""
    node, index = home.node, home.operand
    old = node.inputs[index]
    tensor = constant(old)
    assert old is not None and tensor is not None, "a home is a constant"
    corrected = np.asarray(tensor.numpy() - shift, np.float32)
    node.replace_input_with(index, edit.constant(corrected, f"{old.name}_corrected", node))
