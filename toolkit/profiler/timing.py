"""Nodes timed in a worker of their own, and joined to the model's: the ground that operators and peaks are built on."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from toolkit.graph.executed import executed
from toolkit.graph.facts import input_specs
from toolkit.graph.files import load_model, save_model
from toolkit.graph.naming import with_distinct_names
from toolkit.graph.node_cost import NodeCosts, RegionCost
from toolkit.graph.regions import Claim, regions
from toolkit.profiler.cases import Case
from toolkit.profiler.instrumenting import typical_ns
from toolkit.profiler.interrupts import shielded
from toolkit.profiler.process import Worker
from toolkit.profiler.protocol import Instrument, NodesTimed, Open, Opened
from toolkit.providers.instruments import NodeTime
from toolkit.tensors import TensorSpec

OPEN_TIMEOUT_S = 600.0
_TIMEOUT_S = 120.0
_FLOAT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

Start = Callable[[], Worker]


class TimedNode(msgspec.Struct, frozen=True, kw_only=True):
    """One of the engine's nodes, its own time without what runs inside it, and the model's nodes that it stands for."""

    node: NodeTime
    own_ns: float
    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    cost: RegionCost


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one case in the order they ran; medians of calls without and with instruments."""

    plain_ns: float
    instrumented_ns: float
    nodes: list[TimedNode]
    notes: tuple[str, ...]


def time_nodes(
    case: Case, start: Start, folder: Path, duration_ns: int, *, processes: int = 1, alone: bool = False
) -> Timed:
    """Run ``case`` with instruments in fresh workers, one after the other.

    Args:
        case: an ONNX file on a target.
        folder: for what the instruments write.
        duration_ns: of all rounds together; slow models take at least one call in each.
        processes: medians over so many; where memory lands, some nodes of a process are slower for all its life.
        alone: leave out the runs without instruments.

    Raises:
        CaseEnded: the engine has no such instruments, or the worker failed.
    """
    model, renamed = with_distinct_names(load_model(case.path))
    if renamed:
        # Engines tell their nodes by the names of the file.
        named = folder / "named.onnx"
        save_model(model, named)
        case = msgspec.structs.replace(case, path=str(named))
    found = [_timed(case, start, folder, duration_ns // processes, alone) for _ in range(processes)]
    typical = [typical_ns(item) for item in found]
    return Timed(
        plain_ns=statistics.median(plain for plain, _, _ in typical),
        instrumented_ns=statistics.median(instrumented for _, instrumented, _ in typical),
        nodes=_joined(model, found[0], _medians(found, [factor for _, _, factor in typical])),
        notes=found[0].reading.notes,
    )


def _timed(case: Case, start: Start, folder: Path, duration_ns: int, alone: bool) -> NodesTimed:
    worker: Worker | None = None
    try:
        with shielded():
            worker = start()
        opened = worker.ask(Open(case), Opened, OPEN_TIMEOUT_S)
        timeout_s = _TIMEOUT_S + 50 * opened.first_inference_ns / 1e9
        request = Instrument(str(folder), duration_ns, alone)
        return worker.ask(request, NodesTimed, timeout_s)
    finally:
        if worker is not None:
            with shielded():
                worker.close()


def _medians(found: Sequence[NodesTimed], factors: Sequence[float]) -> list[NodeTime]:
    """The first one's nodes, with medians over all that ran the same nodes, each in times of its typical runs."""
    first = found[0].reading.nodes
    names = [node.name for node in first]
    same = [
        [node.time_ns * factor for node in item.reading.nodes]
        for item, factor in zip(found, factors, strict=True)
        if [node.name for node in item.reading.nodes] == names
    ]
    times = [statistics.median(column) for column in zip(*same, strict=True)]
    return [msgspec.structs.replace(node, time_ns=time) for node, time in zip(first, times, strict=True)]


def _joined(model: Any, timed: NodesTimed, found: list[NodeTime]) -> list[TimedNode]:
    claims = [Claim(item.tensors, item.renamed, item.time_ns) for item in found]
    inside: dict[str, tuple[str, ...]] = {}
    if timed.reading.executed_graph:
        graph = executed(timed.reading.executed_graph, model)
        claims = [graph.claims.get(item.name, Claim(())) for item in found]
        inside = dict(graph.inside)
    costs = NodeCosts(model, _dims(input_specs(model), timed.shapes))
    total = {item.name: item.time_ns for item in found}
    joined = []
    for item, members in zip(found, regions(model, claims), strict=True):
        names = tuple(str(member.name) for member in members)
        children = sum(total.get(name, 0.0) for name in inside.get(item.name, ()))
        joined.append(
            TimedNode(
                node=item,
                own_ns=max(0.0, item.time_ns - children),
                nodes=names,
                operators=tuple(member.op_type for member in members),
                cost=costs.region(names, _FLOAT_BYTES.get(item.precision, 0)),
            )
        )
    return joined


def _dims(specs: tuple[TensorSpec, ...], shapes: dict[str, list[int]]) -> dict[str, int]:
    """Sizes of the named dims as they were fed."""
    return {
        dim: size
        for spec in specs
        for dim, size in zip(spec.shape or (), shapes.get(spec.name, ()), strict=False)
        if isinstance(dim, str)
    }
