"""The table of inputs and outputs is ONNX's own, and nodes that do not keep it are refused."""

from __future__ import annotations

import pytest
from onnx import defs, helper

from tests.bundle.seeds import image_model
from toolkit.errors import InvalidModel
from toolkit.onnxfile.arity import ARITY, MANY, NEWEST, check_arity
from toolkit.onnxfile.check import check_content

SCHEMAS = [schema for schema in defs.get_all_schemas_with_history() if schema.domain == ""]


def test_the_table_is_that_of_onnx() -> None:
    assert {schema.name for schema in SCHEMAS} <= set(ARITY)
    for schema in SCHEMAS:
        least_in, most_in, least_out, most_out = ARITY[schema.name]
        assert least_in <= schema.min_input <= schema.max_input <= most_in
        assert least_out <= schema.min_output <= schema.max_output <= most_out
        assert most_in <= MANY
    assert max(schema.since_version for schema in SCHEMAS) <= NEWEST


def test_every_version_of_every_operator_passes_with_the_fewest_inputs_that_it_takes() -> None:
    for schema in SCHEMAS:
        names = [f"x{index}" for index in range(schema.min_input)]
        check_arity(schema.name, names, ["y"] * max(1, schema.min_output), schema.since_version)


@pytest.mark.parametrize(
    ("inputs", "opset", "match"),
    [
        (["x"], 17, "wants 2 to 3"),
        (["", "w"], 17, "wants 2 to 3"),
        (["x", "w", "b", "more"], 17, "wants 2 to 3"),
        ([], 17, "wants 2 to 3"),
    ],
)
def test_nodes_with_other_inputs(inputs: list[str], opset: int, match: str) -> None:
    model = image_model()
    del model.graph.node[0].input[:]
    model.graph.node[0].input.extend(inputs)
    with pytest.raises(InvalidModel, match=match):
        check_content(model.SerializeToString(), None, "m")


def test_what_became_an_input_later_is_wanted_from_then_on() -> None:
    for version, sound in ((2, True), (10, True), (11, False), (17, False)):
        graph = helper.make_graph([helper.make_node("Pad", ["x"], ["y"])], "g", [], [])
        content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]).SerializeToString()
        if sound:
            check_content(content, None, "m")
        else:
            with pytest.raises(InvalidModel, match="node Pad"):
                check_content(content, None, "m")


def test_what_is_newer_than_the_table_may_take_more() -> None:
    check_arity("Conv", ["x"] * 9, ["y"] * 9, NEWEST + 1)
    with pytest.raises(ValueError, match="node Conv"):
        check_arity("Conv", ["x"], ["y"], NEWEST + 1)


def test_operators_of_other_sets_are_the_engines_business() -> None:
    node = helper.make_node("Conv", [], [], domain="own")
    check_content(helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString(), None, "m")
