"""Does ``toolkit profile --operators`` tell the truth? ``operators.py [MODEL.onnx...] [--target T]... [-o FILE.json]``.

A model made of large operators of different kinds, each of which can be taken out, is always among the models.

Four tables, for each model on each target:

1. the remainder that no operator explains (at most 15 % of latencies above 5 ms);
2. the operator nearest to its roof (none above 105 %);
3. operators taken out of the graph: the latency has to change by the share that was reported, give or take 15 % of it.
   The model with and without take turns. Of each engine's operators, those of different kinds with the largest shares
   are tried whose input can stand in for their output;
4. peaks against a plain loop over a large product through the same engine, written here without the toolkit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

import toolkit
from toolkit.graph.edit import can_replace, replace
from toolkit.graph.facts import input_specs
from toolkit.graph.files import load_model, save_model
from toolkit.graph.naming import with_distinct_names
from toolkit.graph.shapes import infer
from toolkit.graph.walk import every_node
from toolkit.profiler.records import CaseRecord, OperatorRecord, ProfileReport
from toolkit.providers import registry
from toolkit.tensors import complete_dims

LIMITS = {"remainder": 0.15, "of_peak": 1.05, "share": 0.15, "peak": 0.10}
LARGE_NS = 5_000_000
FEWEST_SHARE = 0.03
SIZES = ((512, 512, 512), (512, 2048, 512), (1024, 1024, 1024), (2048, 2048, 2048))


class Removal(NamedTuple):
    """One operator that can be taken out: what stands in for the ``output`` of its nodes is ``stand_in``."""

    model: Path
    target: str
    record: OperatorRecord
    output: str
    stand_in: str


def mixture(folder: Path) -> Path:
    """Operators of different kinds, none of which changes the shape, each a few percent of the latency or more.

    There are two convolutions: without the only one, the engine's changes of layout around it would go as well.
    """
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.standard_normal((32, 32, 3, 3)).astype(np.float32) / 17,
        "w1": rng.standard_normal((32, 32, 3, 3)).astype(np.float32) / 17,
        "w2": rng.standard_normal((128, 128)).astype(np.float32) / 11,
        "s": np.ones(32, np.float32), "b": np.zeros(32, np.float32), "g": np.ones(128, np.float32),
    }  # fmt: skip
    make, pads = helper.make_node, [1, 1, 1, 1]
    nodes = [
        make("MaxPool", ["x"], ["a"], "pool", kernel_shape=[3, 3], pads=pads),
        make("Conv", ["a", "w0"], ["r"], "convolution", pads=pads),
        make("Conv", ["r", "w1"], ["c"], "another", pads=pads),
        make("InstanceNormalization", ["c", "s", "b"], ["d"], "normalization"),
        make("MatMul", ["d", "w2"], ["e"], "product"),
        make("Softmax", ["e"], ["f"], "softmax", axis=-1),
        make("Erf", ["f"], ["h"], "erf"),
        make("LayerNormalization", ["h", "g"], ["y"], "layer", axis=-1),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32, 128, 128]) for name in "xy")
    graph = helper.make_graph(nodes, "mixture", [x], [y], [numpy_helper.from_array(w, n) for n, w in weights.items()])
    path = folder / "mixture" / "float.onnx"
    path.parent.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


# taking operators out


def bypass(model: ir.Model, record: OperatorRecord, dims: dict[str, int]) -> tuple[str, str] | None:
    """Names of the one value that ``record``'s nodes hand on and of one that they read with the same type and shape.

    None where there is no such pair, or where other parts of the model would die with the nodes.
    """
    nodes = [node for node in every_node(model) if node.name in record.nodes]
    inside = set(nodes)
    leaving = [value for node in nodes for value in node.outputs if any(user not in inside for user, _ in value.uses())]
    if len(leaving) != 1 or any(value.is_graph_output() for node in nodes for value in node.outputs):
        return None
    shapes = infer(model, dims)
    entering = {v for node in nodes for v in node.inputs if v is not None and v.producer() not in inside}
    live = [value for value in entering if not value.is_initializer() and _computed(value)]
    wanted = shapes.get(leaving[0])
    for value in live:
        others = [other for other in live if other is not value]
        alive = all(any(user not in inside for user, _ in other.uses()) for other in others)
        found = shapes.get(value)
        if alive and found and wanted and found.sizes and (found.dtype, found.sizes) == (wanted.dtype, wanted.sizes):
            return (str(leaving[0].name), str(value.name)) if can_replace(leaving[0], value) else None
    return None


def _computed(value: ir.Value) -> bool:
    """Whether ``value`` depends on an input of the model."""
    producer = value.producer()
    if producer is None:
        return value.is_graph_input()
    return any(_computed(source) for source in producer.inputs if source is not None)


def without(item: Removal, folder: Path) -> Path:
    """A copy of the model in which the operator is not there."""
    model, _ = with_distinct_names(load_model(item.model))
    values = {value.name: value for node in every_node(model) for value in node.outputs}
    values |= {value.name: value for value in model.graph.inputs}
    assert replace(values[item.output], values[item.stand_in])
    RemoveUnusedNodesPass()(model)
    path = folder / f"{item.model.parent.name}-without-{abs(hash(item.record.nodes)) % 10_000}.onnx"
    save_model(model, path)
    return path


def removals(case: CaseRecord, path: Path) -> Iterator[Removal]:
    model, _ = with_distinct_names(load_model(path))
    dims = complete_dims(input_specs(model), {})
    for record in case.operators.operators if case.operators else []:
        if record.nodes and record.share >= FEWEST_SHARE and (found := bypass(model, record, dims)):
            yield Removal(path, case.target, record, *found)


def chosen(found: list[Removal], count: int) -> list[Removal]:
    """The largest shares, each kind of operator once per engine, engines taking turns."""
    best: dict[tuple[str, str], Removal] = {}
    for item in found:
        key = (item.target, item.record.operator)
        if key not in best or best[key].record.share < item.record.share:
            best[key] = item
    by_target: dict[str, list[Removal]] = {}
    for item in sorted(best.values(), key=lambda item: -item.record.share):
        by_target.setdefault(item.target, []).append(item)
    turns = [item for group in zip_all(list(by_target.values())) for item in group]
    return turns[:count]


def zip_all(lists: list[list[Removal]]) -> Iterator[list[Removal]]:
    for index in range(max((len(items) for items in lists), default=0)):
        yield [items[index] for items in lists if index < len(items)]


def tried(item: Removal, folder: Path, budget_s: float) -> dict[str, Any]:
    """Measure the model with and without the operator, side by side."""
    report = toolkit.profile([str(item.model), str(without(item, folder))], item.target, budget_s=budget_s)
    (found,) = report.comparisons
    change, share = 1 - found.ratio, item.record.share
    return {
        "model": item.model.parent.name, "target": item.target, "operator": item.record.operator,
        "nodes": item.record.nodes, "share": share, "change": change, "change_ci": found.ratio_ci,
        "error": abs(change - share) / share,
    }  # fmt: skip


# peaks, independently


def _product(kind: str, rows: int, inner: int, columns: int) -> bytes:
    """One product with a constant right side: float32, or int8 in the form that the engines know."""
    rng = np.random.default_rng(1)
    if kind == "int8":
        weight = rng.integers(-127, 127, (inner, columns), dtype=np.int8)
        constants = {"w": weight, "s": np.float32(0.02), "z": np.uint8(128), "ws": np.float32(1e-3), "wz": np.int8(0)}
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "s", "z"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
            helper.make_node("MatMul", ["xf", "wf"], ["yf"]),
            helper.make_node("QuantizeLinear", ["yf", "s", "z"], ["y"]),
        ]
        edge = TensorProto.UINT8
    else:
        constants = {"w": rng.standard_normal((inner, columns), dtype=np.float32)}
        nodes, edge = [helper.make_node("MatMul", ["x", "w"], ["y"])], TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "product", [helper.make_tensor_value_info("x", edge, [rows, inner])],
        [helper.make_tensor_value_info("y", edge, [rows, columns])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _runner(provider: str, precision: str, model: bytes, feed: np.ndarray, threads: int) -> Callable[[], object]:
    if provider == "openvino":
        import openvino

        core = openvino.Core()
        hint = "bf16" if precision == "bfloat16" else "f32"
        settings = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads,
        }  # fmt: skip
        request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
        request.set_input_tensor(openvino.Tensor(feed, shared_memory=True))
        return request.infer
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": feed})


def plain_peak(provider: str, precision: str, threads: int, seconds: float = 1.5) -> float:
    """Operations per second of the fastest call over several sizes, by the wall clock."""
    best = 0.0
    for rows, inner, columns in SIZES:
        feed = np.zeros((rows, inner), np.float32 if precision != "int8" else np.uint8)
        run = _runner(provider, precision, _product(precision, rows, inner, columns), feed, threads)
        run()
        end = time.perf_counter() + seconds
        while (before := time.perf_counter()) < end:
            run()
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - before))
        time.sleep(0.2)  # its threads spin for a while
    return best


def peak_rows(report: ProfileReport) -> list[dict[str, Any]]:
    rows = []
    for peak in report.peaks:
        target = registry.target(peak.target)
        threads = target.threads or toolkit.machine.usable_cores()
        if peak.flops_per_s and peak.precision in ("float32", "bfloat16", "int8"):
            own = plain_peak(target.provider, peak.precision, threads)
            rows.append(
                {
                    "target": peak.target, "precision": peak.precision, "toolkit": peak.flops_per_s, "plain": own,
                    "difference": peak.flops_per_s / own - 1, "bytes_per_s": peak.bytes_per_s,
                    "cached_bytes_per_s": peak.cached_bytes_per_s,
                }
            )  # fmt: skip
    return rows


# tables


def remainder_rows(report: ProfileReport) -> list[dict[str, Any]]:
    rows = []
    for case in report.measured:
        if case.operators is not None:
            near = max((item for item in case.operators.operators if item.of_peak), key=_of_peak, default=None)
            rows.append(
                {
                    "case": case.id, "latency_ms": case.operators.latency_ns / 1e6,
                    "remainder": case.operators.unexplained_ns / case.operators.latency_ns,
                    "nearest": near and near.name, "bound": near and near.bound, "of_peak": near and near.of_peak,
                    "notes": case.operators.notes,
                }
            )  # fmt: skip
    return rows


def _of_peak(item: OperatorRecord) -> float:
    return item.of_peak or 0.0


def shown(result: dict[str, Any]) -> None:
    print("\n1., 2. remainder, and the operator nearest to its roof")
    for row in result["cases"]:
        over = row["latency_ms"] * 1e6 > LARGE_NS and row["remainder"] > LIMITS["remainder"]
        high = (row["of_peak"] or 0) > LIMITS["of_peak"]
        nearest = f"{100 * (row['of_peak'] or 0):5.0f} % {row['bound']:7} {row['nearest']}" if row["nearest"] else ""
        marks = " REMAINDER" * over + " ABOVE PEAK" * high
        who = f"{row['model']} {row['case']}"
        print(f"{who:44} {row['latency_ms']:8.2f} ms {100 * row['remainder']:5.1f} %  {nearest}{marks}")
    print("\n3. operators taken out")
    for row in result["removals"]:
        mark = " OFF" * (row["error"] > LIMITS["share"])
        print(
            f"{row['model']:16} {row['target']:14} {row['operator']:18} share {100 * row['share']:5.1f} %  "
            f"change {100 * row['change']:5.1f} %  error {100 * row['error']:5.1f} %{mark}"
        )
    print("\n4. peaks against a plain loop")
    for row in result["peaks"]:
        mark = " OFF" * (abs(row["difference"]) > LIMITS["peak"])
        print(
            f"{row['target']:14} {row['precision']:9} {row['toolkit'] / 1e9:7.1f} against {row['plain'] / 1e9:7.1f} "
            f"GFLOP/s  {100 * row['difference']:+5.1f} %{mark}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--target", action="append", dest="targets", default=None)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of measuring per model and target")
    parser.add_argument("--removals", type=int, default=10, help="operators to take out")
    parser.add_argument("--removal-budget", type=float, default=40.0, help="seconds of measuring for each")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    targets = arguments.targets or ["cpu-fp32", "openvino-f32"]
    result: dict[str, Any] = {"cases": [], "removals": [], "peaks": []}
    candidates: list[Removal] = []
    scratch = tempfile.TemporaryDirectory()
    for path in [*arguments.models, mixture(Path(scratch.name))]:
        report = toolkit.profile(str(path), targets, budget_s=arguments.budget * len(targets), operators=True)
        result["cases"] += [{"model": path.parent.name, **row} for row in remainder_rows(report)]
        for case in report.measured:
            candidates += removals(case, path)
    result["peaks"] = peak_rows(report)
    for item in chosen(candidates, arguments.removals):
        result["removals"].append(tried(item, Path(scratch.name), arguments.removal_budget))
    scratch.cleanup()
    shown(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
