"""torch.export with our own translation of recurrent layers: one ONNX LSTM, GRU or RNN node per layer.

torch.export unrolls ``nn.LSTM`` over time. Here the call below ``nn.LSTM.forward`` is exchanged, during the capture
only, for an operator of ours that torch.export leaves alone, and that operator is translated to ONNX. Both directions
of a layer are one node. Weights get their final order when the graph is finished (:func:`fold_weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from toolkit.exporter.strategies.base import Candidate, Job, NotNeeded, StrategyFailed
from toolkit.exporter.strategies.dynamo import capture_and_translate


class Cell(NamedTuple):
    """How a torch cell maps to ONNX.

    Attributes:
        gates: for each gate in ONNX's order, its place in torch's order.
        attributes: of the ONNX node.
        states: hidden state, and for LSTM the cell state.
    """

    operator: str
    gates: tuple[int, ...]
    attributes: dict[str, Any]
    states: int


# torch orders LSTM gates i f g o and GRU gates r z n; ONNX i o f c and z r h. torch applies the reset gate after the
# recurrent product. Sources: torch.nn.LSTM and GRU documentation; ONNX operators LSTM-14, GRU-14, RNN-14.
CELLS = {
    "lstm": Cell("LSTM", (0, 3, 1, 2), {}, 2),
    "gru": Cell("GRU", (1, 0, 2), {"linear_before_reset": 1}, 1),
    "rnn_tanh": Cell("RNN", (0,), {"activations": ["Tanh"]}, 1),
    "rnn_relu": Cell("RNN", (0,), {"activations": ["Relu"]}, 1),
}


def build(job: Job) -> Candidate:
    """Export with recurrent layers kept whole.

    Raises:
        StrategyFailed: there are none, or one has a form that ONNX lacks.
    """
    layers = [part for part in job.adapter.modules() if isinstance(part, nn.RNNBase)]
    if not layers:
        raise NotNeeded("the module has no recurrent layers")
    if any(getattr(layer, "proj_size", 0) for layer in layers):
        raise StrategyFailed("ONNX has no LSTM with proj_size; write the projection as an nn.Linear")
    with recurrent_layers_kept():
        candidate = capture_and_translate(
            job, {getattr(_operators(), name).default: _translation(name) for name in CELLS}
        )
    fold_weights(candidate.model)
    return candidate


@contextmanager
def recurrent_layers_kept() -> Iterator[None]:
    """Inside the block ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` call operators that torch.export does not take apart."""
    operators = _operators()
    calls = {name: _call(getattr(operators, name)) for name in CELLS} | {"_pack_padded_sequence": _no_packing}
    kept = {name: getattr(torch._VF, name) for name in calls}
    try:
        for name, call in calls.items():
            setattr(torch._VF, name, call)
        yield
    finally:
        for name, function in kept.items():
            setattr(torch._VF, name, function)


def _call(operator: Any) -> Callable[..., Any]:
    def call(data: Tensor, hidden: Any, *rest: Any) -> Any:
        if not isinstance(rest[1], bool):  # the form for packed sequences has one more tensor in front
            _no_packing()
        weights, biases, layers, _, _, both, batch_first = rest
        states = list(hidden) if isinstance(hidden, tuple | list) else [hidden]
        answers = operator(data, states, list(weights), biases, layers, both, batch_first)
        return tuple(answers)

    return call


def _no_packing(*_: Any) -> Any:
    raise StrategyFailed("ONNX has no packed sequences; run the layer on padded ones and pick the last steps by length")


@cache
def _operators() -> Any:
    """The operators ``toolkit::lstm`` and so on; defined once per process."""
    for name, cell in CELLS.items():
        _define(name, cell.states)
    return torch.ops.toolkit


def _define(name: str, states: int) -> None:
    result = ", ".join(["Tensor"] * (1 + states))
    schema = "(Tensor x, Tensor[] states, Tensor[] weights, bool biases, int layers, bool both, bool batch_first)"
    torch.library.define(f"toolkit::{name}", f"{schema} -> ({result})")

    def shapes(
        x: Tensor, states: list[Tensor], weights: list[Tensor], biases: bool, layers: int, both: bool, batch_first: bool
    ) -> tuple[Tensor, ...]:
        hidden = weights[1].shape[1]
        answer = x.new_empty((*x.shape[:-1], hidden * (2 if both else 1)))
        return answer, *(torch.empty_like(state) for state in states)

    torch.library.register_fake(f"toolkit::{name}", shapes)


def _translation(name: str) -> Callable[..., Any]:
    cell = CELLS[name]

    def translate(
        x: Any, states: Sequence[Any], weights: Sequence[Any], biases: bool, layers: int, both: bool, batch_first: bool
    ) -> Any:
        from onnxscript import opset18 as op

        directions = 2 if both else 1
        per_direction = 4 if biases else 2
        current = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
        last: list[list[Any]] = [[] for _ in range(cell.states)]
        for layer in range(layers):
            start = layer * directions * per_direction
            parts = [weights[start + d * per_direction : start + (d + 1) * per_direction] for d in range(directions)]
            initial = [_slice_state(op, state, layer, directions, layers) for state in states]
            outputs = _node(op, cell, current, parts, initial, weights[1].shape[1], both)
            # (time, directions, batch, hidden) to (time, batch, directions × hidden)
            moved = op.Transpose(outputs[0], perm=[0, 2, 1, 3])
            current = op.Reshape(moved, op.Constant(value_ints=[0, 0, -1]))
            for index in range(cell.states):
                last[index].append(outputs[1 + index])
        answer = op.Transpose(current, perm=[1, 0, 2]) if batch_first else current
        return (answer, *(op.Concat(*items, axis=0) if len(items) > 1 else items[0] for items in last))

    return translate


def _slice_state(op: Any, state: Any, layer: int, directions: int, layers: int) -> Any:
    if layers == 1:
        return state
    bounds = [op.Constant(value_ints=[value]) for value in (layer * directions, (layer + 1) * directions, 0)]
    return op.Slice(state, *bounds)


def _node(op: Any, cell: Cell, x: Any, parts: list[Sequence[Any]], initial: list[Any], hidden: Any, both: bool) -> Any:
    """One ONNX node for both directions of a layer, with torch's weights brought into ONNX's order."""
    order = [place * int(hidden) + row for place in cell.gates for row in range(int(hidden))]
    rows = op.Constant(value_ints=order)
    axis = op.Constant(value_ints=[0])

    def stacked(pick: Callable[[Sequence[Any]], Any]) -> Any:
        items = [op.Unsqueeze(pick(part), axis) for part in parts]
        return op.Concat(*items, axis=0) if len(items) > 1 else items[0]

    def ordered(weight: Any) -> Any:
        return op.Gather(weight, rows, axis=0) if len(cell.gates) > 1 else weight

    attributes = dict(cell.attributes)
    if both:
        attributes["direction"] = "bidirectional"
        if "activations" in attributes:
            attributes["activations"] = attributes["activations"] * 2
    bias = None
    if len(parts[0]) == 4:
        bias = stacked(lambda part: op.Concat(ordered(part[2]), ordered(part[3]), axis=0))
    return getattr(op, cell.operator)(
        x, stacked(lambda part: ordered(part[0])), stacked(lambda part: ordered(part[1])), bias, None, *initial,
        hidden_size=int(hidden), **attributes,
    )  # fmt: skip


_RECURRENT_OPERATORS = {cell.operator for cell in CELLS.values()}
_FOLDED: dict[str, Callable[..., Any]] = {
    "Gather": lambda node, data, index: np.take(data, index, axis=node.attributes.get_int("axis", 0)),
    "Unsqueeze": lambda node, data, axes: np.expand_dims(data, tuple(int(axis) for axis in axes)),
    "Concat": lambda node, *items: np.concatenate(items, axis=node.attributes.get_int("axis")),
    "Transpose": lambda node, data: np.transpose(data, node.attributes.get_ints("perm")),
}


def fold_weights(model: ir.Model) -> None:
    """Compute the reordered weights of recurrent nodes and keep the results instead of the originals."""
    for node in list(model.graph):
        if node.op_type in _RECURRENT_OPERATORS and node.domain == "":
            for place in (1, 2, 3):
                value = node.inputs[place] if place < len(node.inputs) else None
                if value is not None and value.producer() is not None and (array := _constant(value)) is not None:
                    name = f"{node.name or node.op_type}_{'XWRB'[place]}"
                    kept = ir.Value(name=name, const_value=ir.tensor(array, name=name))
                    kept.shape, kept.type = ir.Shape(array.shape), ir.TensorType(kept.const_value.dtype)
                    model.graph.initializers[name] = kept
                    node.replace_input_with(place, kept)
    _remove_unused(model)


def _constant(value: ir.Value) -> Any:
    """The array a value always holds, or None where it depends on inputs."""
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or node.op_type not in _FOLDED:
        return None
    arrays = [_constant(item) for item in node.inputs if item is not None]
    return None if any(array is None for array in arrays) else _FOLDED[node.op_type](node, *arrays)


def _remove_unused(model: ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
