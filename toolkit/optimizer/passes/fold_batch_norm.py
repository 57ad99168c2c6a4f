"""Batch norms beside a convolution or matrix product: in inference both are linear, so one node does for two."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from toolkit.graph.constants import constant_array, only_consumer, only_use
from toolkit.graph.edit import Editor, can_replace, remove, replace
from toolkit.optimizer.base import Changes, Pass

Doubles = npt.NDArray[np.float64]
_DTYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


class Affine(NamedTuple):
    """A batch norm in inference: ``x * scale + shift`` per channel, both (C,) float64."""

    scale: Doubles
    shift: Doubles


@final
class FoldBatchNorm(Pass):
    """Fold batch norms into the Conv, ConvTranspose or Gemm before them, or into the Conv or Gemm behind them.

    Behind, only where no padding lies between: what is padded with zeros after a batch norm is no zero before it.
    Arithmetic is float64, rounded once. Half precision is left alone: rounding folded weights to it is another error.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        edit = Editor(model)
        for graph in model.graphs():
            for norm in [node for node in graph if node.op_type == "BatchNormalization" and not node.domain]:
                reason = _fold(norm, edit)
                if reason is None:
                    changes.made(f"BatchNormalization {norm.name or norm.outputs[0].name}")
                else:
                    changes.skip(reason)
        return model


def _fold(norm: ir.Node, edit: Editor) -> str | None:
    """Fold ``norm`` into a neighbour; returns why it stays otherwise."""
    affine = _affine(norm)
    if isinstance(affine, str):
        return affine
    source = norm.inputs[0]
    before = source.producer() if source is not None else None
    if before is not None and only_consumer(before.outputs[0]) is norm and before.op_type in _BEFORE:
        reason = _weights_problem(before, affine, out=True) or _fold_before(norm, before, affine, edit)
        if reason is None:
            return None
    else:
        reason = "no Conv, ConvTranspose or Gemm before it whose result it alone reads"
    behind = only_consumer(norm.outputs[0])
    if behind is None or behind.op_type not in ("Conv", "Gemm") or behind.inputs[0] is not norm.outputs[0]:
        return reason
    return _weights_problem(behind, affine, out=False) or _fold_behind(norm, behind, affine, edit)


def _affine(norm: ir.Node) -> Affine | str:
    if any(output.uses() or output.is_graph_output() for output in norm.outputs[1:]):
        return "it computes statistics, as in training"
    if norm.attributes.get_int("training_mode", 0) or not norm.attributes.get_int("spatial", 1):
        return "training mode, or statistics per element"
    arrays = [constant_array(value) for value in norm.inputs[1:5]]
    if any(array is None for array in arrays):
        return "its statistics are not constant"
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    with np.errstate(divide="ignore", invalid="ignore"):  # judged below
        scale = gamma / np.sqrt(variance + np.float64(np.float32(norm.attributes.get_float("epsilon", 1e-5))))
    shift = beta - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return "its statistics give no finite scale"
    return Affine(scale, shift)


def _weights_problem(node: ir.Node, affine: Affine, *, out: bool) -> str | None:
    """Why ``node``'s weights cannot take up ``affine`` of its output channels (or of its input channels)."""
    weight, bias = node.inputs[1], _bias(node)
    if weight is None or (array := constant_array(weight)) is None:
        return f"the weights of the {node.op_type} are not constant"
    if weight.dtype not in _DTYPES:
        return "half precision"
    if not only_use(weight):
        return f"the weights of the {node.op_type} are used elsewhere too"
    if bias is not None and constant_array(bias) is None:
        return f"the bias of the {node.op_type} is not constant"
    if node.op_type == "Gemm" and bias is not None and not _per_column(node, bias):
        return "the bias of the Gemm differs by row"
    channels = _channels(node, array, out=out)
    return None if channels == affine.scale.size else "the number of channels does not fit"


def _channels(node: ir.Node, weight: Doubles, *, out: bool) -> int:
    group = node.attributes.get_int("group", 1)
    if node.op_type == "Gemm":
        rows_are_outputs = bool(node.attributes.get_int("transB", 0))
        return int(weight.shape[0 if rows_are_outputs == out else 1])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1] * group)
    return int(weight.shape[0] if out else weight.shape[1] * group)


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _per_column(node: ir.Node, bias: ir.Value) -> bool:
    array = constant_array(bias)
    return array is not None and (array.ndim < 2 or array.shape[0] == 1)


def _bias_array(node: ir.Node, channels: int) -> Doubles:
    """The bias as (channels,) float64, a Gemm's times its beta; zeros where there is none."""
    bias = constant_array(_bias(node))
    if bias is None:
        return np.zeros(channels)
    beta = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    return np.broadcast_to(np.asarray(bias, np.float64).reshape(-1) * beta, (channels,))


def _fold_before(norm: ir.Node, node: ir.Node, affine: Affine, edit: Editor) -> str | None:
    output, result = node.outputs[0], norm.outputs[0]
    if not can_replace(result, output):
        return "the result is an output twice"
    weight = np.asarray(constant_array(node.inputs[1]), np.float64)
    bias = _bias_array(node, affine.scale.size) * affine.scale + affine.shift
    _set_weights(node, _BEFORE[node.op_type](node, weight, affine.scale), bias, edit)
    replace(result, output)
    remove(norm)
    return None


def _fold_behind(norm: ir.Node, node: ir.Node, affine: Affine, edit: Editor) -> str | None:
    if node.op_type == "Conv" and not _unpadded(node):
        return "the Conv behind it pads"
    if node.attributes.get_int("transA", 0):
        return "the Gemm behind it transposes"
    weight = np.asarray(constant_array(node.inputs[1]), np.float64)
    if node.op_type == "Gemm":
        columns = weight.T if node.attributes.get_int("transB", 0) else weight  # (in, out)
        added = affine.shift @ columns * node.attributes.get_float("alpha", 1.0)
        scaled = columns * affine.scale[:, None]
        weight = scaled.T if node.attributes.get_int("transB", 0) else scaled
    else:
        # Each output channel reads the input channels of its own group.
        group, per_group = node.attributes.get_int("group", 1), weight.shape[1]
        shape = (group, 1, per_group, *(1,) * (weight.ndim - 2))
        parted = weight.reshape(group, -1, *weight.shape[1:])
        added = (parted * affine.shift.reshape(shape)).sum(axis=tuple(range(2, parted.ndim))).reshape(-1)
        weight = (parted * affine.scale.reshape(shape)).reshape(weight.shape)
    _set_weights(node, weight, _bias_array(node, added.size) + added, edit)
    node.replace_input_with(0, norm.inputs[0])
    remove(norm)
    return None


def _unpadded(node: ir.Node) -> bool:
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    return automatic in ("NOTSET", "VALID") and not any(node.attributes.get_ints("pads", ()))


def _scale_conv(node: ir.Node, weight: Doubles, scale: Doubles) -> Doubles:
    return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))


def _scale_conv_transpose(node: ir.Node, weight: Doubles, scale: Doubles) -> Doubles:
    """(Cin, Cout/group, …): the output channels of a group lie along axis 1 of the group's part of axis 0."""
    group = node.attributes.get_int("group", 1)
    parted = weight.reshape(group, -1, *weight.shape[1:])
    return (parted * scale.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape)


def _scale_gemm(node: ir.Node, weight: Doubles, scale: Doubles) -> Doubles:
    return weight * (scale[:, None] if node.attributes.get_int("transB", 0) else scale)


# operator: how its weights take up a factor per output channel.
_BEFORE = {"Conv": _scale_conv, "ConvTranspose": _scale_conv_transpose, "Gemm": _scale_gemm}


def _set_weights(node: ir.Node, weight: Doubles, bias: Doubles, edit: Editor) -> None:
    old = node.inputs[1]
    assert old is not None and old.dtype is not None
    dtype = old.dtype.numpy()
    name = node.outputs[0].name
    node.replace_input_with(1, edit.constant(weight.astype(dtype), f"{old.name}_folded", node))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, edit.constant(bias.astype(dtype), f"{name}_bias_folded", node))
    if node.op_type == "Gemm":
        node.attributes.pop("beta", None)
