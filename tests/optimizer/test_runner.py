from __future__ import annotations

import onnx_ir as ir
import pytest

from tests.graph.building import build, normal, types
from tests.optimizer.breaking import DropRelus, MisspellOperators, RaiseKeyError, Toggle
from toolkit.errors import InvalidModel, UsageError
from toolkit.optimizer.api import optimize_model
from toolkit.optimizer.base import Pass
from toolkit.optimizer.passes.remove_dead_code import RemoveDeadCode
from toolkit.optimizer.passes.remove_identity import RemoveIdentity
from toolkit.optimizer.runner import MAX_ROUNDS, Plan, Run, plan, simplifications

CHAIN = """g (float[n, 4] x) => (float[n, 4] y) {
    a = Identity(x) b = Relu(a) c = Dropout(b) d = Add(c, w) dead = Exp(d) e = Identity(d) y = Neg(e)
}"""


def chain() -> ir.Model:
    return build(CHAIN, weights={"w": normal(4)})


def test_rounds_go_on_until_nothing_changes() -> None:
    model, reports = optimize_model(chain())
    assert types(model) == ["Relu", "Add", "Neg"]
    by_name = {report.name: report for report in reports}
    assert by_name["RemoveIdentity"].changed == 3
    assert by_name["RemoveDeadCode"].changed == 1
    assert (by_name["RemoveIdentity"].nodes_before, by_name["RemoveDeadCode"].nodes_after) == (7, 3)
    assert [report.name for report in reports] == [item.name for item in simplifications()]


def test_a_second_run_changes_nothing() -> None:
    model, _ = optimize_model(chain())
    again, reports = optimize_model(model)
    assert sum(report.changed for report in reports) == 0
    assert ir.serde.serialize_model(again) == ir.serde.serialize_model(model)


def test_the_model_passed_in_stays_as_it_is() -> None:
    model = chain()
    before = ir.serde.serialize_model(model)
    optimize_model(model, dims={"n": 2}, opset=21)
    assert ir.serde.serialize_model(model) == before


def test_passes_that_never_finish_are_stopped() -> None:
    run = Run(chain(), Plan((), (Toggle(),)))
    assert len(run.steps) == MAX_ROUNDS


def test_bisection_finds_the_bad_step_among_good_ones() -> None:
    passes: tuple[Pass, ...] = (RemoveIdentity(), DropRelus(), RemoveDeadCode())
    run = Run(chain(), Plan((), passes))
    asked: list[int] = []

    def is_good(model: ir.Model) -> bool:
        asked.append(len(model.graph))
        return "Relu" in types(model)

    culprit = run.first_bad_step(is_good)
    assert culprit is not None
    assert culprit.name == "DropRelus"
    assert len(asked) <= 4
    assert run.first_bad_step(lambda model: False) is None, "not even the source is good"


def test_a_pass_that_breaks_the_model_is_named_at_once() -> None:
    with pytest.raises(InvalidModel, match=r"MisspellOperators.*No Op registered for Ralu"):
        optimize_model(chain(), passes=(MisspellOperators(),))


def test_a_pass_that_crashes_is_named_in_one_line() -> None:
    with pytest.raises(InvalidModel, match="RaiseKeyError failed on this model; got KeyError") as caught:
        optimize_model(chain(), passes=(RaiseKeyError(),))
    assert "\n" not in str(caught.value)


def test_a_pass_that_is_left_out_has_to_exist() -> None:
    assert "FoldBatchNorm" not in [item.name for item in plan(skip=("FoldBatchNorm",)).repeated]
    with pytest.raises(UsageError, match="did you mean"):
        plan(skip=("FoldBatchNorms",))


def test_every_pass_is_a_verb_and_a_thing_and_final() -> None:
    for item in simplifications():
        assert item.name[0].isupper()
        assert sum(char.isupper() for char in item.name) >= 2
        assert getattr(type(item), "__final__", False), f"{item.name} is not final"
