"""Which mismatches of an integer or boolean output are ties: decisions that rounding may take either way.

An index that ArgMax, ArgMin or TopK answered, or a boolean that a comparison answered, is a tie where the floats it
was decided on differ by no more than the tolerance. Those floats are read from the graph itself, by a copy of the model
that also answers what it decides on; nothing else is accepted as a reason. Where both models are graphs, both have to
tie. Used only where outputs mismatch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from toolkit.providers import registry
from toolkit.tensors import Array, Feeds

# Operators that hand on values in the same order.
_TRANSPARENT = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten")
_SELECTIONS = {"ArgMax": 0, "ArgMin": 0, "TopK": 1}  # operator: which of its outputs is an index
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_COPY = "toolkit_tie_"


class Decision(msgspec.Struct, frozen=True):
    """How an output was decided: the operator, the names of its float inputs and, for an index, its axis."""

    operator: str
    operands: tuple[str, ...]
    axis: int | None


def find_decision(model: Any, output: str) -> Decision | None:
    """The decision that ``output`` of an onnx_ir model hands on, or None where it is another kind of integer."""
    value = next((item for item in model.graph.outputs if item.name == output), None)
    while value is not None and value.producer() is not None:
        node = value.producer()
        if node.op_type in _SELECTIONS and value.index() == _SELECTIONS[node.op_type]:
            axis = node.attributes.get_int("axis", -1 if node.op_type == "TopK" else 0)
            return Decision(node.op_type, (node.inputs[0].name,), axis)
        if node.op_type in _COMPARISONS:
            return Decision(node.op_type, (node.inputs[0].name, node.inputs[1].name), None)
        value = node.inputs[0] if node.op_type in _TRANSPARENT else None
    return None


def tied_places(
    model: Path, output: str, feeds: Feeds, reference: Array, candidate: Array, tolerance: float, target: str = "cpu"
) -> Array | None:
    """Where ``reference`` and ``candidate`` tie by the floats inside ``model``; None where it does not tell.

    Args:
        model: the ONNX file that answered one of the two.
        output: the output's name in that file.
        feeds: what was fed.
        tolerance: largest difference of the floats, as a part of their peak.
        target: where to run the copy.
    """
    from toolkit.graph.files import load_model

    graph = load_model(model)
    decision = find_decision(graph, output)
    if decision is None or reference.shape != candidate.shape:
        return None
    operands = _operands(graph, decision, feeds, target)
    slack = tolerance * max(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in operands)
    if decision.axis is None:
        return np.broadcast_to(np.abs(operands[0] - operands[1]) <= slack, reference.shape)
    return _same_score(operands[0], decision.axis, reference, candidate, slack)


def _operands(graph: Any, decision: Decision, feeds: Feeds, target: str) -> list[Array]:
    """The decision's float inputs for ``feeds``, from a copy of the model that answers them."""
    import onnx_ir as ir

    values: Mapping[str, Any] = {value.name: value for node in graph.graph for value in node.outputs}
    values = {**{value.name: value for value in graph.graph.inputs}, **graph.graph.initializers, **values}
    names = []
    for index, operand in enumerate(decision.operands):
        # An Identity, since a graph may not answer one of its inputs or constants directly.
        node = ir.node("Identity", [values[operand]])
        node.outputs[0].name = f"{_COPY}{index}"
        graph.graph.append(node)
        graph.graph.outputs.append(node.outputs[0])
        names.append(node.outputs[0].name)
    chosen = registry.target(target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(graph, path, external_data="model.onnx.data")
        with registry.provider(chosen.provider).open(path, chosen) as session:
            answers = session(feeds)
    return [answers[name].astype(np.float64) for name in names]


def _same_score(scores: Array, axis: int, reference: Array, candidate: Array, slack: float) -> Array:
    """Where both indices point at scores that differ by at most ``slack``."""
    kept = [size for place, size in enumerate(scores.shape) if place != axis % scores.ndim]
    count = reference.size // max(1, int(np.prod(kept)))
    shape = [*scores.shape]
    shape[axis % scores.ndim] = count
    wanted, got = reference.astype(np.int64).reshape(shape), candidate.astype(np.int64).reshape(shape)
    size = scores.shape[axis]
    inside = (wanted >= 0) & (wanted < size) & (got >= 0) & (got < size)
    difference = np.take_along_axis(scores, np.where(inside, wanted, 0), axis) - np.take_along_axis(
        scores, np.where(inside, got, 0), axis
    )
    return np.asarray((np.abs(difference) <= slack) & inside).reshape(reference.shape)
