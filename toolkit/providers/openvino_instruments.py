"""OpenVINO's performance counters: time per node, and the tensors of the ONNX file that each node computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import msgspec

from toolkit.providers.instruments import NodeTime, Reading
from toolkit.providers.openvino_ import compile_graph, read_file
from toolkit.providers.openvino_engine import ARITHMETIC_LAYERS, PASSIVE_LAYERS, OpenvinoEngine, info_of, node_precision
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds

_COUNT = {"PERF_COUNT": True}
# Each run is counted in whole microseconds, rounded down, and so is the average over all runs that is handed out.
# Source: src/plugins/intel_cpu/src/perf_count.h (PerfCount::finish_itr, avg).
_HALF_A_TICK_NS = 500.0
_EXACT = 0.03
"""A round's average counts for the fastest where rounding leaves it this exact."""


@final
class OpenvinoInstruments:
    """A compiled model whose nodes count their time, driven one request at a time on one stream.

    The counters only hand out averages since the model was compiled: what a round took is the difference of two sums.
    """

    most_runs = 1_000_000

    def __init__(self, model: Path, target: Target) -> None:
        graph = read_file(model)
        self._tensors = tensor_names(graph)
        compiled = compile_graph(graph, target, _COUNT)
        streams = int(compiled.get_property("NUM_STREAMS"))
        if streams > 1:
            threads = max(1, int(compiled.get_property("INFERENCE_NUM_THREADS")) // streams)
            compiled = compile_graph(graph, _one_stream(target, threads), _COUNT)
        self._engine = OpenvinoEngine(compiled)
        self._runs = 0
        self._sums: list[tuple[int, dict[str, float]]] = []

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self._runs += 1
        return self._engine.run(feeds)

    def start(self) -> None:
        self._sums = [self._counted()]

    def mark(self) -> None:
        self._sums.append(self._counted())

    def _counted(self) -> tuple[int, dict[str, float]]:
        """Runs so far, and nanoseconds that each node took in all of them together."""
        info = self._engine.profiling_info() if self._runs else []
        executed = [item for item in info if item.status == type(item.status).EXECUTED]
        sums = {
            item.node_name: (item.real_time.total_seconds() * 1e9 + _rounding(item)) * self._runs for item in executed
        }
        return self._runs, sums

    def read(self) -> Reading:
        rounds = [_difference(before, after) for before, after in zip(self._sums, self._sums[1:], strict=False)]
        total = _difference(self._sums[0], self._sums[-1])
        ops = list(self._engine.compiled.get_runtime_model().get_ordered_ops())
        computed = _computed(ops, self._tensors)
        nodes = [
            _node(op, computed[name], total[name], [taken[name] for taken in rounds if name in taken])
            for op in ops
            if (name := op.get_friendly_name()) in total
        ]
        return Reading(nodes=_whole(nodes), typical=False, notes=("OpenVINO's counters give averages over all runs",))

    def close(self) -> None:
        self._engine.close()


def _node(op: Any, tensors: tuple[str, ...], time_ns: float, rounds_ns: list[float]) -> NodeTime:
    info = info_of(op)
    # Half a tick of an average over all runs weighs on the few runs of one round.
    exact = _HALF_A_TICK_NS * len(rounds_ns) <= _EXACT * time_ns
    return NodeTime(
        name=op.get_friendly_name(),
        operator=info["layerType"],
        time_ns=time_ns,
        best_ns=min(rounds_ns) if exact and rounds_ns else time_ns,
        precision=node_precision(info),
        tensors=tensors,
        renamed=True,
    )


def _computed(ops: Sequence[Any], known: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The file's tensors that each of the runtime model's nodes computes; ``known`` by layers of the file.

    Passes make up names for what they write anew, such as the two directions of an LSTM. What computes under a made-up
    name belongs to those that follow it; what only moves data does not.
    """
    found: dict[str, tuple[str, ...]] = {}
    behind: dict[str, tuple[str, ...]] = {}
    for op in reversed(ops):
        name, info = op.get_friendly_name(), info_of(op)
        layers = info.get("originalLayersNames", "").split(",")
        own = [tensor for layer in layers for tensor in known.get(layer) or known.get(layer.rpartition(".")[0], ())]
        found[name] = behind[name] = tuple(dict.fromkeys(own))
        if not own:
            behind[name] = tuple(dict.fromkeys(tensor for reader in _readers(op) for tensor in behind.get(reader, ())))
            found[name] = behind[name] if info["layerType"] in ARITHMETIC_LAYERS else ()
    return found


def _whole(nodes: Sequence[NodeTime]) -> list[NodeTime]:
    """Kernels of one kind that compute the same tensors together are one node: each did a part of the arithmetic."""
    found: dict[object, NodeTime] = {}
    for node in nodes:
        parts = node.tensors and node.operator in ARITHMETIC_LAYERS
        key: object = (node.operator, node.tensors) if parts else node.name
        first = found.get(key)
        found[key] = (
            node
            if first is None
            else msgspec.structs.replace(
                first,
                name=f"{first.name}, {node.name}",
                time_ns=first.time_ns + node.time_ns,
                best_ns=first.best_ns + node.best_ns,
            )
        )
    return list(found.values())


def _readers(op: Any) -> list[str]:
    return [port.get_node().get_friendly_name() for output in op.outputs() for port in output.get_target_inputs()]


def _one_stream(target: Target, threads: int) -> Target:
    return msgspec.structs.replace(target, mode="latency", streams=1, threads=threads)


def _rounding(item: Any) -> float:
    """What is missing of an average that was rounded down, as were its terms; of a zero, only half a tick is likely."""
    return 2 * _HALF_A_TICK_NS if item.real_time else _HALF_A_TICK_NS


def _difference(before: tuple[int, dict[str, float]], after: tuple[int, dict[str, float]]) -> dict[str, float]:
    """Nanoseconds per run of each node between two counts."""
    runs = max(1, after[0] - before[0])
    return {name: max(0.0, total - before[1].get(name, 0.0)) / runs for name, total in after[1].items()}


def tensor_names(graph: Any) -> Mapping[str, tuple[str, ...]]:
    """The file's tensors that each layer of a graph as it was read computes, by the layer's name.

    A layer without any, as where one operator becomes several layers, belongs to those that follow it.
    """
    found: dict[str, tuple[str, ...]] = {}
    for op in reversed(graph.get_ordered_ops()):
        own = [name for output in op.outputs() for name in sorted(output.get_names())]
        if not own:
            own = [name for reader in _readers(op) for name in found.get(reader, ())]
        if op.get_type_name() not in (*PASSIVE_LAYERS, "Constant"):
            found[op.get_friendly_name()] = tuple(dict.fromkeys(own))
    return found
