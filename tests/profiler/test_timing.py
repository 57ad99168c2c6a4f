"""Nodes timed by real engines in real workers, and joined to the model's nodes through fusion, branches and loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.graph.building import proto
from toolkit.profiler.cases import Case
from toolkit.profiler.process import CaseEnded, ProcessWorker
from toolkit.profiler.timing import Timed, TimedNode, time_nodes
from toolkit.targets import Target

MS = 1_000_000
ENGINES = ("cpu", "openvino")
RNG = np.random.default_rng(0)


def timed(model: onnx.ModelProto, engine: str, folder: Path, batch: int | None = None, **dims: int) -> Timed:
    path = folder / "model.onnx"
    onnx.save(model, path)
    case = Case(
        model="m", path=str(path), target=Target(name=engine, provider=engine, threads=1), batch=batch, dims=dims
    )
    return time_nodes(case, ProcessWorker, folder, 60 * MS)


def behind(found: Timed, node: str) -> TimedNode:
    """The engine's node that stands for ``node``."""
    return next(item for item in found.nodes if node in item.nodes)


@pytest.fixture
def convolutions() -> onnx.ModelProto:
    """Two convolutions with activations, the second with a residual sum; ``batch`` is free."""
    weights = {name: 0.05 * RNG.standard_normal((32, 32, 3, 3)).astype(np.float32) for name in ("w1", "w2")}
    return proto(
        """agraph (float[batch, 32, 28, 28] x) => (float[batch, 32, 28, 28] y) {
            [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            [relu] b = Relu (a)
            [second] c = Conv <pads = [1, 1, 1, 1]> (b, w2)
            [sum] d = Add (c, b)
            [end] y = Relu (d)
        }""",
        weights=weights,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_fused_is_one_record_with_the_arithmetic_of_all(
    engine: str, convolutions: onnx.ModelProto, tmp_path: Path
) -> None:
    found = timed(convolutions, engine, tmp_path, batch=2)
    first, second = behind(found, "first"), behind(found, "second")
    assert set(first.nodes) == {"first", "relu"}
    elements = 2 * 32 * 28 * 28
    product = elements * 2 * 32 * 9 * (82 / 84) ** 2  # of 3 taps at 28 places, 2 meet padding
    assert first.cost.flops == pytest.approx(product + elements, abs=1)
    assert sum(item.cost.flops or 0 for item in found.nodes) == pytest.approx(2 * product + 3 * elements, abs=2)
    weight_bytes = 4 * 32 * 32 * 9
    assert first.cost.read_bytes == 4 * elements + weight_bytes
    assert first.cost.written_bytes == second.cost.written_bytes == 4 * elements
    assert sorted(name for item in found.nodes for name in item.nodes) == ["end", "first", "relu", "second", "sum"]
    assert first.own_ns > 1000 and first.node.precision == "float32"
    assert sum(item.own_ns for item in found.nodes) > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_quantized_convolution_keeps_its_bytes_narrow(engine: str, tmp_path: Path) -> None:
    constants = {
        "s": np.float32(0.05), "z": np.uint8(128), "ws": np.full(16, 0.01, np.float32), "wz": np.zeros(16, np.int8),
        "w": RNG.integers(-127, 127, (16, 16, 3, 3), dtype=np.int8),
    }  # fmt: skip
    model = proto(
        """agraph (float[1, 16, 32, 32] x) => (float[1, 16, 32, 32] y) {
            [q] a = QuantizeLinear (x, s, z)
            [dq] b = DequantizeLinear (a, s, z)
            [dqw] wf = DequantizeLinear <axis = 0> (w, ws, wz)
            [conv] c = Conv <pads = [1, 1, 1, 1]> (b, wf)
            [q2] d = QuantizeLinear (c, s, z)
            [dq2] y = DequantizeLinear (d, s, z)
        }""",
        weights=constants,
    )
    found = timed(model, engine, tmp_path)
    conv = behind(found, "conv")
    assert "dq" in conv.nodes
    assert conv.node.precision == "int8"
    assert conv.cost.read_bytes < 4 * 16 * 32 * 32


def branching() -> onnx.ModelProto:
    """An If whose branches name their tensors alike and their nodes not at all; the first runs for a positive mean."""
    value = helper.make_tensor_value_info
    branches = {}
    for name, steps in (("then_branch", 3), ("else_branch", 1)):
        nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "w"], [f"h{i + 1}"]) for i in range(steps)]
        nodes.append(helper.make_node("Identity", [f"h{steps}"], [f"{name}_out"]))
        branches[name] = helper.make_graph(nodes, name, [], [value(f"{name}_out", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "limit"], ["positive"]),
        helper.make_node("If", ["positive"], ["chosen"], **branches),
        helper.make_node("Tanh", ["chosen"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(0.05 * RNG.standard_normal((256, 256)).astype(np.float32), "w"),
        numpy_helper.from_array(np.asarray(np.float32(-100)), "limit"),
    ]
    ends = [value("x", TensorProto.FLOAT, [256, 256])], [value("y", TensorProto.FLOAT, [256, 256])]
    graph = helper.make_graph(nodes, "g", *ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("engine", ENGINES)
def test_branches_are_counted_once(engine: str, tmp_path: Path) -> None:
    found = timed(branching(), engine, tmp_path)
    chosen = next(item for item in found.nodes if "If" in item.operators)
    inside = [item for item in found.nodes if item.operators and set(item.operators) <= {"MatMul", "Identity"}]
    assert len(inside) == (3 if engine == "cpu" else 0)
    assert chosen.own_ns == pytest.approx(
        max(0.0, chosen.node.time_ns - sum(item.node.time_ns for item in inside)), rel=0.5 if not inside else 1e-6
    )
    products = [item for item in found.nodes if "MatMul" in item.operators]
    flops = sum(item.cost.flops or 0 for item in products)
    one = 2 * 256**3
    # One engine shows the three products of the branch that ran, the other the If, of which the costlier branch counts.
    assert 3 * one <= flops < 4 * one
    assert all(name for item in found.nodes for name in item.nodes)


def test_a_loop_s_body_counts_as_often_as_it_runs_and_the_loop_keeps_its_overhead(tmp_path: Path) -> None:
    model = proto(
        """agraph (float[128, 128] x) => (float[128, 128] y) {
            count = Constant <value = int64 {5}> ()
            go = Constant <value = bool {1}> ()
            [loop] y = Loop (count, go, x) <body = body (int64 i, bool c, float[128, 128] h)
                => (bool c2, float[128, 128] h2) {
                    c2 = Identity (c)
                    [product] p = MatMul (h, w)
                    [squash] h2 = Tanh (p)
                }>
        }""",
        weights={"w": 0.05 * RNG.standard_normal((128, 128)).astype(np.float32)},
    )
    found = timed(model, "cpu", tmp_path)
    loop, product = behind(found, "loop"), behind(found, "product")
    assert loop.nodes == ("loop",)
    inside = [item for item in found.nodes if item.node.name != loop.node.name]
    assert loop.own_ns == pytest.approx(max(0.0, loop.node.time_ns - sum(item.node.time_ns for item in inside)))
    assert product.own_ns > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_operator_that_an_engine_takes_apart_is_one_record(engine: str, tmp_path: Path) -> None:
    sizes = {"w": (2, 128, 16), "r": (2, 128, 32), "b": (2, 256)}
    model = proto(
        """agraph (float[10, 1, 16] x) => (float[10, 2, 1, 32] y) {
            [lstm] y = LSTM <hidden_size = 32, direction = "bidirectional"> (x, w, r, b)
        }""",
        weights={name: 0.1 * RNG.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()},
    )
    found = timed(model, engine, tmp_path)
    lstm = behind(found, "lstm")
    assert lstm.own_ns > 0.4 * sum(item.own_ns for item in found.nodes)
    assert lstm.cost.flops == 2 * 10 * 2 * 128 * (16 + 32)
    assert [item.nodes for item in found.nodes if item.nodes] == [("lstm",)]


def test_dims_are_those_that_were_fed(tmp_path: Path) -> None:
    model = proto(
        "agraph (float[batch, seq, 64] x) => (float[batch, seq, 64] y) { [product] y = MatMul (x, w) }",
        weights={"w": np.eye(64, dtype=np.float32)},
    )
    found = timed(model, "cpu", tmp_path, batch=3, seq=10)
    assert behind(found, "product").cost.flops == 2 * 3 * 10 * 64 * 64


def test_a_provider_without_instruments_says_so(tmp_path: Path, convolutions: onnx.ModelProto) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(convolutions, path)
    case = Case(model="m", path=str(path), target=Target(name="null", provider="null"))
    with pytest.raises(CaseEnded):
        time_nodes(case, ProcessWorker, tmp_path, MS)
