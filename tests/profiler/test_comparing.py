"""Two records side by side: who is compared with whom, in which environments, with what verdict."""

from __future__ import annotations

import msgspec
import pytest

from tests.profiler.recorded import RAN, case, elsewhere, report
from toolkit.errors import UsageError
from toolkit.profiler.comparing import compare, joined
from toolkit.profiler.differences import differences
from toolkit.profiler.environment import environment


def test_what_got_slower_is_called_and_what_did_not_is_not() -> None:
    old = report(case("a.onnx", 10), case("b.onnx", 20, seed=1), case("gone.onnx"), warnings=["it was noisy"])
    new = report(case("a.onnx", 13, seed=2), case("b.onnx", 20.1, seed=3), case("come.onnx"))
    found = compare(old, new)
    slower, same = found.changes
    assert (slower.old, slower.verdict, same.verdict) == ("a.onnx@cpu", "slower", "no significant difference")
    assert slower.ratio == pytest.approx(1.3, rel=0.01)
    assert slower.ratio_ci is not None and slower.ratio_ci[0] < 1.3 < slower.ratio_ci[1]
    assert (found.only_old, found.only_new) == (["gone.onnx@cpu"], ["come.onnx@cpu"])
    assert found.warnings == ["old: it was noisy"] and found.environment == []


def test_the_other_way_round_it_got_faster() -> None:
    (change,) = compare(report(case(ms=13)), report(case(ms=10, seed=1))).changes
    assert change.verdict == "faster"


def test_one_process_gives_a_ratio_without_a_verdict() -> None:
    (change,) = compare(report(case(ms=10, processes=1)), report(case(ms=20))).changes
    assert (change.ratio_ci, change.verdict) == (None, "no significant difference")
    assert change.notes[0].startswith("no interval: a record of one process")


def test_different_environments_are_refused_and_what_differs_is_said() -> None:
    here = environment()
    other = elsewhere(
        usable_cores=here.usable_cores + 6,
        packages={**here.packages, "onnxruntime": "1.9.0", "tensorrt": "10.0"},
        cpu_features=(*here.cpu_features, "sve2"),
        gpus=({"name": "A100"},),
        variables={"OMP_NUM_THREADS": "1"},
    )
    with pytest.raises(UsageError, match="--across-environments") as caught:
        compare(report(case()), report(case(), environment=other))
    text = str(caught.value)
    assert caught.value.exit_code == 2
    for part in (
        f"usable cores {here.usable_cores} → {here.usable_cores + 6}", "→ 1.9.0", "package tensorrt absent → 10.0",
        "cpu feature sve2 absent → present", "gpu 0 name absent → A100", "variable OMP_NUM_THREADS absent → 1",
    ):  # fmt: skip
        assert part in text
    found = compare(report(case()), report(case(ms=20), environment=other), across=True)
    assert "usable cores" in {item.fact for item in found.environment}
    assert found.changes[0].verdict == "slower"


def test_load_is_not_environment_but_an_unexplained_fingerprint_is() -> None:
    assert differences(environment(), environment()) == []
    (only,) = differences(environment(), elsewhere())
    assert (only.after, "fingerprint" in only.fact) == ("0123456789abcdef", True)


def test_cases_are_joined_by_name_then_by_content_at_the_same_size() -> None:
    old = [case("a.onnx", batch=1), case("a.onnx", batch=8), case("b.onnx", model_sha256="b" * 64)]
    new = [
        case("renamed.onnx", model_sha256="b" * 64), case("a.onnx", batch=8, model_sha256="c" * 64),
        case("a.onnx", batch=1, target="gpu"), case("a.onnx", batch=1, dims={"seq": 4}),
    ]  # fmt: skip
    assert [(one.id, one.batch, two.model) for one, two in joined(old, new)] == [
        ("a.onnx@cpu", 8, "a.onnx"),
        ("b.onnx@cpu", 1, "renamed.onnx"),
    ]


def test_scenarios_are_not_mixed() -> None:
    offline = case(scenario="offline")
    assert joined([case()], [offline]) == []
    assert joined([case(scenario="multi-stream", streams=2)], [case(scenario="multi-stream", streams=4)]) == []


def test_a_record_of_one_model_each_is_about_that_model() -> None:
    (change,) = compare(report(case("v1.onnx")), report(case("v2.onnx", model_sha256="d" * 64))).changes
    assert (change.old, change.new) == ("v1.onnx@cpu", "v2.onnx@cpu")
    assert "the model changed" in change.notes[0]


def test_nothing_in_common_is_misuse() -> None:
    with pytest.raises(UsageError, match="no case in common; got a.onnx@gpu; expected a.onnx@cpu"):
        compare(report(case("a.onnx")), report(case("a.onnx", target="gpu")))


def test_what_ran_otherwise_is_noted() -> None:
    ran = msgspec.structs.replace(RAN, threads=1, executed_precision={"bfloat16": 3})
    (change,) = compare(report(case()), report(case(execution=ran, precision="int8", model_sha256=""))).changes
    assert change.notes == [
        "whether the model is the same cannot be told: a record holds no hash", "precision float32 → int8",
        "threads 2 → 1", "computed in float32 → bfloat16",
    ]  # fmt: skip
