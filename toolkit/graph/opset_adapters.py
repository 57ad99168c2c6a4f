"""What changed between opsets in ways that break a node, and how the node is rewritten. One entry per change.

An operator whose definition grew in a compatible way needs no entry; a test compares this table with every schema that
onnx knows. Source: onnx/docs/Changelog.md, and the schemas' history in ``onnx.defs``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from toolkit.errors import InvalidModel
from toolkit.graph.edit import Editor

Adapter = Callable[[ir.Node, Editor], str | None]
"""Rewrites a node in place for the next opset; returns what a person should know about it, or None."""

_INT64 = ir.DataType.INT64
_FLOAT = ir.DataType.FLOAT


def refuse(node: ir.Node, reason: str) -> InvalidModel:
    where = f"{node.op_type} node '{node.name or node.outputs[0].name}'"
    return InvalidModel("cannot be upgraded to a newer opset", where=where, got=reason)


def take(node: ir.Node, name: str, default: Any = None) -> Any:
    """Remove attribute ``name`` and return its value."""
    attribute = node.attributes.pop(name, None)
    if attribute is None:
        return default
    if attribute.is_ref():
        raise refuse(node, f"attribute {name} refers to one of the function's")
    return attribute.value


def drop(*names: str) -> Adapter:
    """The attributes lost their meaning."""

    def adapt(node: ir.Node, edit: Editor) -> None:
        for name in names:
            take(node, name)

    return adapt


def to_inputs(*attributes: tuple[str, int, ir.DataType | None]) -> Adapter:
    """Attributes became inputs: (attribute, index of the input, element type; None for that of input 0)."""

    def adapt(node: ir.Node, edit: Editor) -> None:
        for name, index, dtype in attributes:
            if (value := take(node, name)) is not None:
                add_input(node, edit, index, np.asarray(value), name, dtype)

    return adapt


def add_input(
    node: ir.Node, edit: Editor, index: int, value: Any, role: str, dtype: ir.DataType | None = _INT64
) -> None:
    """Give ``node`` a constant as its input ``index``."""
    source = node.inputs[0] if node.inputs else None
    dtype = dtype or (source.dtype if source is not None else None) or _FLOAT
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    name = f"{node.name or node.outputs[0].name}_{role}"
    node.replace_input_with(index, edit.constant(np.asarray(value).astype(dtype.numpy()), name, node))


def set_default(name: str, value: Any) -> Adapter:
    """The default changed: what was implied is written down."""

    def adapt(node: ir.Node, edit: Editor) -> None:
        if name not in node.attributes:
            node.attributes[name] = ir.convenience.convert_attribute(name, value)

    return adapt


def refused(reason: str, unless: Callable[[ir.Node], bool] = lambda node: False) -> Adapter:
    def adapt(node: ir.Node, edit: Editor) -> None:
        if not unless(node):
            raise refuse(node, reason)

    return adapt


def each(*adapters: Adapter) -> Adapter:
    """Several changes at once; their notes are joined."""

    def adapt(node: ir.Node, edit: Editor) -> str | None:
        return "; ".join(note for adapter in adapters if (note := adapter(node, edit))) or None

    return adapt


def rank(node: ir.Node, edit: Editor, index: int) -> int:
    shape = edit.shape(node.inputs[index])
    if shape is None:
        raise refuse(node, f"the rank of its input {index} is not known")
    return len(shape)


def _align_broadcast(node: ir.Node, edit: Editor) -> None:
    """Before opset 7 the second operand lined up with the first from ``axis`` on; since then, at their last axes."""
    axis, broadcast = take(node, "axis"), take(node, "broadcast", 0)
    if broadcast and axis is not None and node.inputs[1] is not None:
        left, right = rank(node, edit, 0), rank(node, edit, 1)
        _append_axes(node, edit, 1, left - (axis if axis >= 0 else axis + left) - right)
    edit.learn(node.outputs[0], edit.shape(node.inputs[0]))


def _append_axes(node: ir.Node, edit: Editor, index: int, count: int) -> None:
    value, held = node.inputs[index], rank(node, edit, index)
    if count > 0 and held > 0:
        axes = list(range(held, held + count))
        wide = edit.before(node, "Unsqueeze", [value], {"axes": axes}, name=f"{node.outputs[0].name}_aligned")
        node.replace_input_with(index, wide)


def _align_slope(node: ir.Node, edit: Editor) -> None:
    """PRelu's slope per channel becomes one that broadcasts: (C,) to (C, 1, 1)."""
    if rank(node, edit, 1) == 1:
        _append_axes(node, edit, 1, rank(node, edit, 0) - 2)


def _inference_mode(node: ir.Node, edit: Editor) -> str | None:
    written_for_training = not take(node, "is_test", 0)
    if not written_for_training:
        return None
    return f"{node.op_type} '{node.name or node.outputs[0].name}' was written in training mode; inference is assumed"


def _only_first_output(node: ir.Node, edit: Editor) -> None:
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise refuse(node, "it computes statistics, as in training")
    node.resize_outputs(1)


def _spatial(node: ir.Node, edit: Editor) -> None:
    if not take(node, "spatial", 1) and rank(node, edit, 0) > 2:
        raise refuse(node, "spatial=0: statistics per element")


def _upsample_scales(node: ir.Node, edit: Editor) -> None:
    height, width = take(node, "height_scale"), take(node, "width_scale")
    if height is not None:
        node.attributes["scales"] = ir.AttrFloat32s("scales", [1.0, 1.0, height, width])
    if take(node, "mode", "nearest") in ("bilinear", "linear"):
        node.attributes["mode"] = ir.AttrString("mode", "linear")


def _rename(op_type: str) -> Adapter:
    def adapt(node: ir.Node, edit: Editor) -> None:
        node.op_type = op_type

    return adapt


def _resize_11(node: ir.Node, edit: Editor) -> None:
    """Resize learnt coordinate modes; what it did before is called asymmetric, rounding down."""
    scales = node.inputs[1]
    add_input(node, edit, 1, np.zeros(0), "roi", _FLOAT)
    node.resize_inputs(3)
    node.replace_input_with(2, scales)
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")
    node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def _pad_11(node: ir.Node, edit: Editor) -> None:
    pads, value = take(node, "pads"), take(node, "value", 0.0)
    add_input(node, edit, 1, pads, "pads")
    if value:
        add_input(node, edit, 2, value, "value", None)


def _softmax_13(node: ir.Node, edit: Editor) -> None:
    """Softmax over all axes from ``axis`` on, taken as one, became softmax over ``axis`` alone."""
    axis = take(node, "axis", 1)
    value, output = node.inputs[0], node.outputs[0]
    known = edit.shape(value)
    if known and axis % len(known) == len(known) - 1:
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return
    name = output.name or node.op_type
    node.replace_input_with(0, edit.before(node, "Flatten", [value], {"axis": axis}, name=f"{name}_flat"))
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    shape = edit.before(node, "Shape", [value], name=f"{name}_shape")
    restore = ir.node("Reshape", [output, shape], name=edit.node_name(f"{name}_restored"))
    node.append(restore)
    _move_output(output, restore, edit)


def _move_output(output: ir.Value, last: ir.Node, edit: Editor) -> None:
    """Let ``last``, which reads ``output``, stand in for it everywhere else, under its name."""
    result, name = last.outputs[0], output.name
    result.type, result.shape = output.type, output.shape
    result.name = edit.fresh(f"{name}_result")
    for user, index in list(output.uses()):
        if user is not last:
            user.replace_input_with(index, result)
    graph = output.graph
    if output.is_graph_output() and graph is not None:
        for index, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[index] = result
    output.name, result.name = edit.fresh(f"{name}_before"), name
    output.shape = None


def _split_18(node: ir.Node, edit: Editor) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _grid_sample_20(node: ir.Node, edit: Editor) -> None:
    mode = take(node, "mode", "bilinear")
    node.attributes["mode"] = ir.AttrString("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _dft_20(node: ir.Node, edit: Editor) -> None:
    add_input(node, edit, 2, take(node, "axis", 1), "axis")


def _group_norm_21(node: ir.Node, edit: Editor) -> None:
    """Scale and bias per group became scale and bias per channel: each is repeated."""
    groups, shape = node.attributes.get_int("num_groups"), edit.shape(node.inputs[0])
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    if groups is None or not isinstance(channels, int):
        raise refuse(node, "its number of channels is not known")
    for index, role in ((1, "scale"), (2, "bias")):
        name = f"{node.outputs[0].name}_{role}"
        column = edit.constant(np.array([groups, 1]), f"{name}_column", node)
        wide = edit.constant(np.array([groups, channels // groups]), f"{name}_wide", node)
        flat = edit.constant(np.array([-1]), f"{name}_flat", node)
        parted = edit.before(node, "Reshape", [node.inputs[index], column], name=f"{name}_parted")
        spread = edit.before(node, "Expand", [parted, wide], name=f"{name}_spread")
        node.replace_input_with(index, edit.before(node, "Reshape", [spread, flat], name=f"{name}_channels"))


def _cast_6(node: ir.Node, edit: Editor) -> None:
    to = take(node, "to")
    node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType[to]) if isinstance(to, str) else int(to))


def _whole_p(node: ir.Node, edit: Editor) -> None:
    node.attributes["p"] = ir.AttrInt64("p", int(take(node, "p", 2)))


def _paddings(node: ir.Node, edit: Editor) -> None:
    node.attributes["pads"] = ir.AttrInt64s("pads", take(node, "paddings"))


def _mask_is_unused(node: ir.Node) -> bool:
    return not any(output.uses() or output.is_graph_output() for output in node.outputs[1:])


def _coordinates_known(node: ir.Node) -> bool:
    return bool(node.attributes.get_string("coordinate_transformation_mode") != "tf_half_pixel_for_nn")


_AXES = to_inputs(("axes", 1, _INT64))
_SELU = each(set_default("alpha", 1.6732), set_default("gamma", 1.0507))

# (operator, opset that changed it): how. "*" stands for every operator.
ADAPTERS: dict[tuple[str, int], Adapter] = {
    ("Pad", 2): _paddings,
    ("LpPool", 2): _whole_p,
    ("GlobalLpPool", 2): _whole_p,
    ("Split", 2): refused("sizes as an input", unless=lambda node: len(node.inputs) == 1),
    ("Concat", 4): set_default("axis", 1),
    ("Reshape", 5): to_inputs(("shape", 1, _INT64)),
    ("*", 6): drop("consumed_inputs"),
    ("Cast", 6): _cast_6,
    ("Selu", 6): _SELU,
    ("Tile", 6): refused("tiles and axis as inputs"),
    **{
        (name, 7): _align_broadcast
        for name in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
    },
    ("Gemm", 7): drop("broadcast"),
    ("PRelu", 7): _align_slope,
    ("BatchNormalization", 7): _inference_mode,
    ("Dropout", 7): _inference_mode,
    **{(name, 7): drop("output_sequence") for name in ("LSTM", "GRU", "RNN")},
    ("Upsample", 7): _upsample_scales,
    ("BatchNormalization", 9): _spatial,
    ("Upsample", 9): to_inputs(("scales", 1, _FLOAT)),
    ("Scan", 9): refused("scans over a batch"),
    ("Upsample", 10): _rename("Resize"),
    ("Slice", 10): to_inputs(("starts", 1, _INT64), ("ends", 2, _INT64), ("axes", 3, _INT64)),
    ("TopK", 10): lambda node, edit: add_input(node, edit, 1, [take(node, "k")], "k"),
    ("Dropout", 10): refused("its mask is used", unless=_mask_is_unused),
    ("Resize", 11): _resize_11,
    ("Pad", 11): _pad_11,
    ("Clip", 11): to_inputs(("min", 1, None), ("max", 2, None)),
    ("Scatter", 11): _rename("ScatterElements"),
    ("Dropout", 12): to_inputs(("ratio", 1, _FLOAT)),
    **{(name, 13): _softmax_13 for name in ("Softmax", "LogSoftmax", "Hardmax")},
    **{(name, 13): _AXES for name in ("Squeeze", "Unsqueeze", "ReduceSum")},
    ("Split", 13): to_inputs(("split", 1, _INT64)),
    ("Resize", 13): refused("tf_half_pixel_for_nn was removed", unless=_coordinates_known),
    ("BatchNormalization", 14): _only_first_output,
    ("RoiAlign", 16): set_default("coordinate_transformation_mode", "output_half_pixel"),
    **{
        (f"Reduce{name}", 18): _AXES
        for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
    ("Split", 18): _split_18,
    ("GridSample", 20): _grid_sample_20,
    ("DFT", 20): _dft_20,
    ("GroupNormalization", 21): _group_norm_21,
}
