"""Scenarios and sweeps from end to end, with null models in real processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

import toolkit
from toolkit.errors import UsageError
from toolkit.profiler.cases import Case, Scenario, label
from toolkit.profiler.models import Model
from toolkit.profiler.planning import Wish, plan
from toolkit.profiler.records import ProfileReport
from toolkit.profiler.sweeps import Setting, all_settings, widened
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

NullModelFile = Callable[..., str]
MS = 1_000_000
NULL = Target(name="null", provider="null")
ALL: Sequence[Scenario] = ("single-stream", "multi-stream", "offline")


def test_each_scenario_has_its_own_throughput_and_its_own_comparisons(null_model: NullModelFile) -> None:
    files = [null_model(f"{name}.json", delay_ns=4 * MS, sample_ns=MS) for name in "ab"]
    report = toolkit.profile(files, "null", scenarios=ALL, streams=3, budget_s=4, processes=1)
    assert [case.status for case in report.cases] == ["ok"] * 6
    single, multi, offline = report.cases[:3]
    assert (single.scenario, single.streams, multi.scenario, multi.streams) == ("single-stream", 1, "multi-stream", 3)
    assert single.throughput_per_s and multi.throughput_per_s and offline.throughput_per_s
    assert multi.throughput_per_s > 2 * single.throughput_per_s  # sleeping threads do not wait for each other
    assert multi.latency_ns and multi.latency_ns.p50 and multi.latency_ns.p50 >= 5 * MS
    # 4 ms + 1 ms a sample: 200, 333, 500, 667, 800, 889, 941 and 970 samples/s; the last gains 3 %.
    assert [batch for batch, _ in offline.batches_tried][:5] == [1, 2, 4, 8, 16]
    assert offline.batch in (16, 32, 64, 128)
    assert offline.throughput_per_s > 3 * single.throughput_per_s
    pairs = {(item.baseline, item.candidate) for item in report.comparisons}
    assert pairs == {
        ("a.json@null", "b.json@null"),
        ("a.json@null[streams=3]", "b.json@null[streams=3]"),
        ("a.json@null[offline]", "b.json@null[offline]"),
    }
    assert msgspec.json.decode(report.to_json(), type=ProfileReport) == report


def test_a_case_that_fails_under_load_costs_only_itself(null_model: NullModelFile) -> None:
    for failure, reason in (("segfault", "SIGSEGV"), ("raise", "the null engine failed")):
        bad = null_model("bad.json", failure=failure, fail_after=12, delay_ns=MS)
        good = null_model("good.json", delay_ns=MS)
        report = toolkit.profile([bad, good], "null", scenarios=["multi-stream"], budget_s=0.5, processes=1)
        assert [case.status for case in report.cases] == ["failed", "ok"]
        assert reason in report.cases[0].reason


def test_a_fixed_batch_is_measured_offline_as_it_is(null_model: NullModelFile) -> None:
    fixed = null_model(inputs=(TensorSpec("x", "float32", (4, 3)),), outputs=(), delay_ns=MS)
    (case,) = toolkit.profile(fixed, "null", scenarios=["offline"], budget_s=0.3, processes=1).cases
    assert (case.status, case.batch, [batch for batch, _ in case.batches_tried]) == ("ok", 4, [4])
    assert "the batch is fixed in the model: no other was tried" in case.warnings


def test_offline_with_real_samples_repeats_them(null_model: NullModelFile, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "data.npz", x=np.ones((5, 4), np.float32))
    slow = null_model(delay_ns=2 * MS, sample_ns=2 * MS)
    model = Model(name="m", path=slow, kind="file", inputs=(TensorSpec("x", "float32", ("batch", 4)),))
    data = tmp_path / "data.npz"
    (case,) = toolkit.profile(model, "null", scenarios=["offline"], data=data, budget_s=0.3, processes=1).cases
    assert case.status == "ok" and case.batch is not None and case.batch > 4


def test_a_sweep_gives_its_curve(null_model: NullModelFile) -> None:
    file = null_model(sample_ns=2 * MS, delay_ns=3 * MS)
    report = toolkit.profile(file, "null", sweeps={"batch": [1, 2, 4, 8]}, budget_s=3, processes=2)
    (sweep,) = report.sweeps
    assert (sweep.model, sweep.target, sweep.variable) == ("model.json", "null", "batch")
    assert sweep.points == [(float(size), f"model.json@null[batch={size}]") for size in (1, 2, 4, 8)]
    assert sweep.exponent == pytest.approx(1, abs=0.3)
    assert sweep.exponent_ci is not None and sweep.exponent_ci[0] <= sweep.exponent <= sweep.exponent_ci[1]
    assert "fitted over 4 points, 1 to 8, beside an overhead" in sweep.notes[-1]


def test_points_of_threads_are_targets_that_say_so_and_are_compared(null_model: NullModelFile) -> None:
    report = toolkit.profile(null_model(delay_ns=MS), "null", sweeps={"threads": [1, 2]}, budget_s=0.5, processes=1)
    assert [case.target for case in report.cases] == ["null[threads=1]", "null[threads=2]"]
    assert [item.candidate for item in report.comparisons] == ["model.json@null[threads=2]"]
    assert report.sweeps[0].target == "null" and report.sweeps[0].exponent is None


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"scenarios": ["server"]}, "--scenario: no such scenario; got 'server'"),
        ({"scenarios": []}, "--scenario: no scenario to measure"),
        ({"streams": 0}, "--streams: cannot be measured; got 0; expected 1 to 256"),
        ({"streams": 100_000}, "--streams: cannot be measured"),
        ({"sweeps": {"batch": []}}, "--sweep: batch takes sizes of 1 or more"),
        ({"sweeps": {"batch": [0, 1]}}, "--sweep: batch takes sizes of 1 or more"),
        ({"sweeps": {"width": [8]}}, "a file has one width"),
        ({"machine": "no/such.toml"}, "no such machine file"),
    ],
)
def test_nonsense_is_refused(null_model: NullModelFile, wish: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        toolkit.profile(null_model(), "null", **wish)  # type: ignore[arg-type]


def test_settings_multiply_scenarios_and_batches_and_follow_each_sweep_alone() -> None:
    assert all_settings(None, {}, {}, ["single-stream"], 4) == [Setting()]
    found = all_settings([1, 8], {"seq": 16}, {"seq": [16, 32], "threads": [2]}, ["single-stream"], 4)
    assert [(item.batch, item.dims["seq"], item.threads) for item in found] == [
        (1, 16, 0), (1, 32, 0), (1, 16, 2), (8, 16, 0), (8, 32, 0), (8, 16, 2),
    ]  # fmt: skip


def test_offline_finds_its_batch_whatever_is_asked_and_swept() -> None:
    found = all_settings([1, 8], {}, {"batch": [1, 2]}, ["offline", "multi-stream"], 3)
    assert [(item.scenario, item.streams, item.batch) for item in found] == [
        ("offline", 1, None), ("multi-stream", 3, 1), ("multi-stream", 3, 2),
    ]  # fmt: skip


def test_a_setting_that_two_sweeps_share_is_measured_once() -> None:
    found = all_settings([1], {"seq": 16}, {"batch": [1, 2], "seq": [16, 32]}, ["single-stream"], 4)
    assert [(item.batch, item.dims["seq"], item.points) for item in found] == [
        (1, 16, {"batch": 1.0, "seq": 16.0}), (2, 16, {"batch": 2.0}), (1, 32, {"seq": 32.0}),
    ]  # fmt: skip


def test_labels_tell_scenarios_apart() -> None:
    case = Case(model="m", path="m", target=NULL, batch=2, dims={"seq": 3}, streams=4, scenario="multi-stream")
    assert label(case) == "m@null[batch=2,seq=3,streams=4]"
    offline = msgspec.structs.replace(case, scenario="offline", streams=1)
    assert label(offline) == "m@null[seq=3,offline]"


def test_each_width_is_a_model_of_its_own_that_is_compared_with_none_of_another(tmp_path: Path) -> None:
    source = Model(name="zoo:fcnn", path="zoo:fcnn", kind="source")
    exported = Model(name="fcnn.onnx", path="f", kind="onnx", width=64, family="zoo:fcnn.onnx", group="width=64")
    models = widened([source, exported], [64, 128])
    assert [(model.path, model.group) for model in models] == [
        ("zoo:fcnn?width=64", "width=64"), ("zoo:fcnn?width=128", "width=128"), ("f", "width=64"),
    ]  # fmt: skip
    wish = Wish(settings=all_settings(None, {}, {"width": [64, 128]}, ["single-stream"], 1))
    torch = Target(name="torch-eager", provider="torch")
    found = plan(models[:2], {"torch-eager": torch}, {}, wish, tmp_path)
    cases = [item for item in found if isinstance(item, Case)]
    assert [(case.model, case.family, case.points) for case in cases] == [
        ("zoo:fcnn?width=64", "zoo:fcnn", {"width": 64.0}), ("zoo:fcnn?width=128", "zoo:fcnn", {"width": 128.0}),
    ]  # fmt: skip
    assert widened([source], ()) == [source]


def test_a_run_under_load_goes_on_with_the_batch_that_was_found(null_model: NullModelFile, tmp_path: Path) -> None:
    file = null_model(delay_ns=4 * MS, sample_ns=MS)
    wish = {"scenarios": ["multi-stream", "offline"], "streams": 2, "processes": 1}
    first = toolkit.profile(file, "null", budget_s=1, **wish)  # type: ignore[arg-type]
    (tmp_path / "report.json").write_bytes(first.to_json())
    more = toolkit.profile(file, "null", budget_s=1, resume=tmp_path / "report.json", **wish)  # type: ignore[arg-type]
    for before, after in zip(first.cases, more.cases, strict=True):
        assert (after.id, after.batch, after.streams) == (before.id, before.batch, before.streams)
        assert after.batches_tried == before.batches_tried
        assert after.calls > before.calls
        assert after.throughput_per_s == pytest.approx(before.throughput_per_s, rel=0.3)
