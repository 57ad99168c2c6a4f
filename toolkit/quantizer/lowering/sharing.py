"""One range for what a Concat reads and gives, so that engines copy its bytes instead of rescaling them.

With one scale the Concat rounds nothing: each operand is rounded once where, with a scale of its own, it was rounded a
second time to the scale of the result. Only those that read an operand beside the Concat can lose by the wider range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from toolkit.quantizer.calibration.observers import Range
from toolkit.quantizer.plan import PlacedNode, Plan, constant

COARSEST = 2.0
"""Steps may grow by this factor where that costs accuracy: 6 dB, one of the 8 bits. Rounding leaves 32 to 37 dB of each
tensor of SqueezeNet in its own range, and whole models are asked for 20 dB."""


def shared_ranges(plan: Plan, own: Mapping[str, Range]) -> tuple[dict[str, Range], dict[str, str]]:
    """``own`` with one range for all that Concats put together, through chains of them and through shared operands.

    Returns:
        The ranges, and the nodes that shall stay in float, with the reason, because ranges differ too much.
    """
    ranges, apart = dict(own), dict[str, str]()
    joins = [placed for placed in plan.nodes if placed.rule.one_scale]
    sensitive, limits = _read_elsewhere(plan, joins), _limits(plan)
    groups: dict[str, frozenset[str]] = {}
    for placed in joins:
        members = frozenset(same for name in _members(plan, placed) for same in groups.get(name, (name,)))
        bounds = _hull(own[name] for name in members)
        if coarse := [name for name in sorted(members & sensitive) if _width(bounds) > COARSEST * _width(own[name])]:
            apart[placed.node.name or ""] = f"its operands' ranges differ too much for one scale: {', '.join(coarse)}"
        elif wide := [name for name in sorted(members & limits.keys()) if _undoes(bounds, own[name], limits[name])]:
            apart[placed.node.name or ""] = f"one scale would reach beyond the Relu or Clip of {', '.join(wide)}"
        else:
            groups |= dict.fromkeys(members, members)
            ranges |= dict.fromkeys(members, bounds)
    return ranges, apart


def _limits(plan: Plan) -> dict[str, Range]:
    """What Relu and Clip bound results to: engines leave them out where the range of the Q behind does the same."""
    results = [placed.result for placed in plan.nodes if placed.result is not None]
    return {value.name or "": limits for value in results if (limits := _bounds(value.producer())) is not None}


def _bounds(node: ir.Node | None) -> Range | None:
    if node is None or node.domain or node.op_type not in ("Relu", "Clip"):
        return None
    if node.op_type == "Relu":
        return 0.0, math.inf
    low, high = (constant(value) for value in (*node.inputs[1:], None, None)[:2])
    return (
        -math.inf if low is None else float(low.numpy().item()),
        math.inf if high is None else float(high.numpy().item()),
    )


def _undoes(bounds: Range, own: Range, limits: Range) -> bool:
    """Whether ``bounds`` reach beyond ``limits`` where ``own`` do not."""
    return (bounds[0] < limits[0] <= own[0]) or (bounds[1] > limits[1] >= own[1])


def _members(plan: Plan, placed: PlacedNode) -> tuple[str, ...]:
    """The tensors whose ranges the operands and the result of ``placed`` are stored with."""
    assert placed.result is not None, "a rule of one scale has a pair on its result"
    sources = (plan.scale_of.get(value, value) for value in placed.activations.values())
    return tuple(value.name or "" for value in (*sources, placed.result))


def _read_elsewhere(plan: Plan, joins: Iterable[PlacedNode]) -> frozenset[str]:
    """The tensors that are read by more than nodes that put them together."""
    nodes = {placed.node for placed in joins}

    def elsewhere(value: ir.Value) -> bool:
        if value.is_graph_output():
            return True
        readers = [use.node for use in value.uses() if use.node not in nodes]
        return any(not _moves(plan, node) or any(map(elsewhere, node.outputs)) for node in readers)

    results = (placed.result for placed in plan.nodes if placed.result is not None)
    return frozenset(value.name or "" for value in results if elsewhere(value))


def _moves(plan: Plan, node: ir.Node) -> bool:
    return not node.domain and node.op_type in plan.variant.transparent


def _hull(ranges: Iterable[Range]) -> Range:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _width(bounds: Range) -> float:
    return bounds[1] - bounds[0]
