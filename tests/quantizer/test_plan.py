from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolkit.graph.files import load_model
from toolkit.graph.shapes import infer
from toolkit.providers.placement import Variant, placement_rules
from toolkit.quantizer.plan import Plan, make_plan
from toolkit.quantizer.preparing import prepare

CPU = placement_rules("cpu.toml").variants[0]


def plan(path: Path, variant: Variant = CPU, **options: object) -> Plan:
    model = prepare(load_model(path), opset=13, where=path).model
    return make_plan(model, variant, infer(model), **options)  # type: ignore[arg-type]  # options of make_plan


def results(found: Plan) -> dict[str, str | None]:
    return {placed.node.outputs[0].name or "": placed.result and placed.result.name for placed in found.nodes}


def test_chains_that_run_as_one_stay_whole(cnn: Path) -> None:
    # The second convolution feeds the residual sum alone, whose Relu belongs to the sum.
    assert results(plan(cnn)) == {"a": "r", "c": "c", "s": "t", "d": "e", "g": "g", "y": None}


def test_operators_that_move_elements_keep_the_scale(cnn: Path) -> None:
    found = plan(cnn)
    assert {value.name: root.name for value, root in found.scale_of.items()} == {"p": "t", "f": "g"}
    assert "p" not in found.tensors


def test_attention_stays_float_on_the_cpu_and_not_on_openvino(block: Path) -> None:
    left = Counter((item.operator, item.reason) for item in plan(block).left)
    assert left[("MatMul", "its weight is not a constant")] == 2
    signed = plan(block, placement_rules("openvino.toml").variant("signed"))
    assert len(signed.nodes) == len(plan(block).nodes) + 2


def test_results_that_nothing_quantized_reads_get_no_pair_where_the_engine_gives_float(
    write: Callable[..., Path],
) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\n' + (
        "g (float[N,4,8,8] x) => (float[N,6,2,2] y) { a = Conv(x, v)\n b = Relu(a)\n c = Conv(b, w)\n y = Sigmoid(c) }"
    )
    source = write(text, {"v": (6, 4, 3, 3), "w": (6, 6, 5, 5)})
    openvino = placement_rules("openvino.toml").variant("unsigned")
    assert results(plan(source, openvino)) == {"a": "b", "c": None}
    assert results(plan(source)) == {"a": "b", "c": "c"}  # QLinearConv needs one behind it


def test_bias_sums_are_left_alone(block: Path) -> None:
    reasons = {item.node: item.reason for item in plan(block).left if item.operator == "Add"}
    assert set(reasons.values()) == {"not between quantized nodes"}
    assert len(reasons) == 3


def test_what_cannot_be_used_is_said(cnn: Path) -> None:
    found = plan(cnn, unusable={"t": "its tensor is all zero in calibration"})
    reasons = {item.operator: item.reason for item in found.left}
    assert reasons["Add"] == "its tensor is all zero in calibration"
    assert "s" not in results(found)
    assert "d" in results(found), "what MaxPool gives has a range of its own"


def test_nodes_may_be_kept_out_by_name(cnn: Path) -> None:
    name = plan(cnn).nodes[0].node.name
    found = plan(cnn, keep_float={name: "kept in float on request"})
    assert [item.reason for item in found.left if item.node == name] == ["kept in float on request"]


def test_nodes_in_subgraphs_stay_float_and_are_named(write: Callable[..., Path]) -> None:
    path = write(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,8] x, bool c) => (float[N,8] y) {
          y = If(c) <
            then_branch = t () => (float[N,8] a) { a = MatMul(x, w) },
            else_branch = e () => (float[N,8] b) { b = Relu(x) }>
        }""",
        {"w": (8, 8)},
    )
    found = plan(path)
    assert not found.nodes
    assert [(item.operator, item.reason) for item in found.left] == [("MatMul", "inside a subgraph")]


@pytest.mark.parametrize(
    ("node", "weights", "reason"),
    [
        ("y = MatMul(x, w)", {"w": np.ones((4, 4), np.float64)}, "its weight is double, not float32"),
        ("y = MatMul(x, w)", {"w": np.full((4, 4), np.nan, np.float32)}, "its weight has a NaN or an infinity"),
        ("y = MatMul(x, w)", {"w": np.ones(4, np.float32)}, "its weight has the shape [4]"),
        ("y = Gemm<alpha=2.0>(x, w)", {"w": np.ones((4, 4), np.float32)}, "alpha, beta or transA is set"),
        ("y = Gemm(x, w, b)", {"w": np.ones((4, 4), np.float32), "b": np.ones((2, 4), np.float32)},
         "its bias has the shape [2, 4]"),
        ("y = Gemm(x, w, b)", {"w": np.ones((4, 4), np.float32), "b": np.full(4, np.inf, np.float32)},
         "its bias is not finite float32"),
        ("y = MatMul(w, x)", {"w": np.ones((2, 2), np.float32)}, "operand 0 is a constant"),
    ],
)  # fmt: skip
def test_why_a_node_is_left(node: str, weights: dict[str, np.ndarray], reason: str, write: Callable[..., Path]) -> None:
    dtype = "double" if "double" in reason else "float"
    path = write(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({dtype}[2,4] x) => ({dtype}[2,4] y) {{ {node} }}', weights
    )
    found = plan(path)
    assert not found.nodes
    if dtype == "double":
        assert "is double, not float32" in found.left[0].reason
    else:
        assert found.left[0].reason == reason
