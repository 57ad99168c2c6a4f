"""Which nodes an engine's nodes stand for, what they cost together, and names that tell all nodes apart."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.building import build, check, run
from toolkit.graph.naming import with_distinct_names
from toolkit.graph.node_cost import NodeCosts
from toolkit.graph.regions import Claim, regions
from toolkit.graph.walk import every_node

CHAIN = """agraph (float[2, 8] x) => (float[2, 4] y) {
    [one] a = MatMul (x, w)
    [bias] b = Add (a, v)
    [view] c = Reshape (b, shape)
    [relu] d = Relu (c)
    [two] y = MatMul (d, u)
}"""
WEIGHTS = {
    "w": np.ones((8, 8), np.float32), "v": np.ones(8, np.float32), "u": np.ones((8, 4), np.float32),
    "shape": np.array([2, 8], np.int64),
}  # fmt: skip


def names(model: ir.Model, *claims: Claim) -> list[list[str]]:
    return [[str(node.name) for node in members] for members in regions(model, claims)]


def test_between_the_tensors_of_two_nodes_lies_what_was_fused_into_the_second() -> None:
    found = names(build(CHAIN, weights=WEIGHTS), Claim(("b",)), Claim(("y",)))
    assert found == [["one", "bias"], ["view", "relu", "two"]]


def test_what_only_changes_a_renamed_result_belongs_to_the_node_before() -> None:
    found = names(build(CHAIN, weights=WEIGHTS), Claim(("a",), renamed=True), Claim(("c",)), Claim(("y",)))
    assert found == [["one", "bias"], ["view"], ["relu", "two"]]


def test_of_two_renamed_results_the_later_one_was_added_to() -> None:
    text = """agraph (float[2, 8] x) => (float[2, 8] y) {
        [left] a = MatMul (x, w)
        [right] b = MatMul (x, w)
        [sum] c = Add (a, b)
        [relu] y = Relu (c)
    }"""
    model = build(text, weights={"w": WEIGHTS["w"]})
    found = names(model, Claim(("b",), renamed=True), Claim(("a",), renamed=True))
    assert found == [["right"], ["left", "sum", "relu"]]


def test_of_several_that_claim_a_tensor_the_heaviest_has_it() -> None:
    found = names(build(CHAIN, weights=WEIGHTS), Claim(("y",), weight=1), Claim(("y",), weight=5), Claim(("y",)))
    assert [len(members) for members in found] == [0, 5, 0]


def test_a_layout_change_stands_for_nothing_and_constants_belong_to_nobody() -> None:
    text = """agraph (float[2, 8] x) => (float[2, 8] y) {
        [folded] k = Exp (w)
        [one] y = MatMul (x, k)
    }"""
    assert names(build(text, weights={"w": WEIGHTS["w"]}), Claim(()), Claim(("y",))) == [[], ["one"]]


def test_what_passes_inside_a_region_is_not_counted() -> None:
    costs = NodeCosts(build(CHAIN, weights=WEIGHTS), {})
    whole = costs.region(["one", "bias", "view", "relu", "two"])
    assert whole.flops == 2 * 2 * 8 * 8 + 2 * 8 + 2 * 8 + 2 * 2 * 8 * 4
    constants = sum(WEIGHTS[name].nbytes for name in ("w", "v", "u"))
    assert whole.read_bytes - constants in (2 * 8 * 4, 2 * 8 * 4 + WEIGHTS["shape"].nbytes)
    assert whole.written_bytes == 2 * 4 * 4
    assert costs.region(["view"]) == costs.region(["not there"])


def test_floats_are_counted_as_wide_as_they_were_executed() -> None:
    costs = NodeCosts(build(CHAIN, weights=WEIGHTS), {})
    wide, narrow = costs.region(["one"]), costs.region(["one"], float_bytes=2)
    assert (narrow.read_bytes, narrow.written_bytes) == (wide.read_bytes // 2, wide.written_bytes // 2)


def test_an_operator_without_a_rule_has_no_arithmetic_but_traffic() -> None:
    text = """agraph (float[2, 8] x) => (float[2, 8] y) { [odd] y = MeanVarianceNormalization <axes = [1]> (x)
        [det] z = Det (w) }"""
    costs = NodeCosts(build(text, weights={"w": np.eye(3, dtype=np.float32)}), {})
    assert costs.region(["odd"]).flops == 7 * 16
    unknown = build("agraph (float[2, 3, 3] x) => (float[2] y) { [det] y = Det (x) }")
    cost = NodeCosts(unknown, {}).region(["det"])
    assert (cost.flops, cost.read_bytes, cost.written_bytes) == (None, 72, 8)


def test_a_gather_reads_the_rows_it_takes() -> None:
    text = "agraph (int64[5] i) => (float[5, 16] y) { [take] y = Gather (table, i) }"
    cost = NodeCosts(build(text, weights={"table": np.zeros((1000, 16), np.float32)}), {}).region(["take"])
    assert (cost.read_bytes, cost.written_bytes) == (5 * 16 * 4 + 5 * 8, 5 * 16 * 4)


@pytest.mark.parametrize("labels", [("", ""), ("same", "same"), ("same", "")])
def test_nodes_without_names_of_their_own_get_some_and_the_model_stays_the_same(labels: tuple[str, str]) -> None:
    marks = [f"[{label}] " if label else "" for label in labels]
    text = f"agraph (float[2, 8] x) => (float[2, 8] y) {{ {marks[0]}a = Relu (x) {marks[1]}y = Exp (a) }}"
    model = build(text)
    before = [node.name for node in every_node(model)]
    named, changed = with_distinct_names(model)
    found = [node.name for node in every_node(named)]
    assert changed and len(set(found)) == 2 and all(found)
    assert [node.name for node in every_node(model)] == before
    check(named)
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    np.testing.assert_allclose(run(named, x=x)[0], np.exp(np.maximum(x, 0)), rtol=1e-6)


def test_a_node_without_a_name_is_called_after_its_operator_and_place() -> None:
    named, _ = with_distinct_names(build("agraph (float[2] x) => (float[2] y) { y = Relu (x) }"))
    assert [node.name for node in every_node(named)] == ["Relu_0"]


def test_a_model_with_names_is_left_alone() -> None:
    model = build(CHAIN, weights=WEIGHTS)
    assert with_distinct_names(model) == (model, False)
