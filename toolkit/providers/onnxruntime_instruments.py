"""ONNX Runtime's profiler: time per node of many runs, and the optimized graph that tells what each node stands for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import msgspec

from toolkit.providers.instruments import NodeTime, Reading
from toolkit.providers.onnxruntime_ import Chain, inference_session, session_options
from toolkit.providers.onnxruntime_engine import KEEP_FLOAT, rounds_in_secret
from toolkit.providers.onnxruntime_proof import RECORD_ASSIGNMENT, node_precision, session_operator_count
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds

# An event takes over a kilobyte of the profile file, and the profiler keeps a million of them.
_EVENTS = 40_000
_FEWEST_RUNS = 8
# The clock counts whole microseconds, rounded down: on average half of one is missing.
# Source: TimeDiffMicroSeconds in onnxruntime/core/common/profiler.cc.
_HALF_A_TICK_NS = 500.0


class _Args(msgspec.Struct):
    """Of what a node ran on; :func:`node_precision` reads the types of its inputs from it."""

    op_name: str = ""
    provider: str = ""
    input_type_shape: list[dict[str, Any]] = []


class _Event(msgspec.Struct):
    """What is used of one event of a profile file; times in microseconds."""

    cat: str = ""
    name: str = ""
    dur: int = 0
    args: _Args | None = None


@final
class OnnxRuntimeInstruments:
    """A session that profiles every run, opened as the plain one is.

    Args:
        model: the file.
        folder: where the profile and the optimized graph are written.
    """

    def __init__(self, model: Path, target: Target, folder: Path, chain: Chain) -> None:
        self._graph = folder / "executed.onnx"
        probe = inference_session(model, session_options(target, RECORD_ASSIGNMENT), chain)
        config = KEEP_FLOAT if rounds_in_secret(probe, target) else {}
        self.most_runs = max(_FEWEST_RUNS, _EVENTS // max(1, session_operator_count(probe)))
        del probe
        options = session_options(target, {**config, **_weights_beside(self._graph)})
        options.optimized_model_filepath = str(self._graph)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "run")
        self._session = inference_session(model, options, chain)
        self._names = [output.name for output in self._session.get_outputs()]
        self._runs, self._first = 0, 0

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self._runs += 1
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))

    def start(self) -> None:
        self._first = self._runs

    def mark(self) -> None:
        """Runs are told apart by the profile itself."""

    def read(self) -> Reading:
        path = Path(self._session.end_profiling())
        events = msgspec.json.decode(path.read_bytes(), type=list[_Event])
        path.unlink()
        runs = _runs(events)[self._first :]
        return Reading(nodes=node_times(runs), typical=True, executed_graph=str(self._graph))

    def close(self) -> None:
        del self._session


def _weights_beside(graph: Path) -> dict[str, str]:
    """Session configuration that keeps weights out of the optimized graph's file, which is only read for its names."""
    return {
        "session.optimized_model_external_initializers_file_name": f"{graph.name}.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "64",
    }


def _runs(events: Sequence[_Event]) -> list[tuple[int, list[_Event]]]:
    """Duration of each complete run in microseconds, and the events of its nodes, in the order of the file."""
    found: list[tuple[int, list[_Event]]] = []
    nodes: list[_Event] = []
    for event in events:
        if event.cat == "Node" and event.args is not None and event.args.provider:
            nodes.append(event)
        elif event.name == "model_run":
            found.append((event.dur, nodes))
            nodes = []
    return found


def node_times(runs: Sequence[tuple[int, Sequence[_Event]]]) -> list[NodeTime]:
    """Times per node over the middle half of ``runs`` by duration: neither the interrupted ones nor the luckiest."""
    ordered = sorted(runs, key=lambda run: run[0])
    quarter = len(ordered) // 4
    first: dict[str, _Event] = {}
    per_run: list[dict[str, float]] = []
    for _, events in ordered:
        sums: dict[str, float] = {}
        for event in events:
            name = event.name.removesuffix("_kernel_time")
            first.setdefault(name, event)
            sums[name] = sums.get(name, 0.0) + event.dur * 1000.0 + _HALF_A_TICK_NS
        per_run.append(sums)
    chosen = per_run[quarter : len(per_run) - quarter]
    return [_node_time(name, event, chosen, per_run) for name, event in first.items()]


def _node_time(
    name: str, event: _Event, chosen: Sequence[dict[str, float]], per_run: Sequence[dict[str, float]]
) -> NodeTime:
    assert event.args is not None, "only events of nodes are kept"
    return NodeTime(
        name=name,
        operator=event.args.op_name,
        time_ns=statistics.fmean(sums.get(name, 0.0) for sums in chosen),
        best_ns=min(sums[name] for sums in per_run if name in sums),
        precision=node_precision(msgspec.to_builtins(event.args)),
    )
