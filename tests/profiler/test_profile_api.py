"""``toolkit.profile`` from end to end: null models in real processes, and one small ONNX file on real engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from toolkit.errors import InvalidTarget, ProviderUnavailable, UsageError
from toolkit.profiler.models import Model
from toolkit.profiler.records import ProfileReport
from toolkit.profiler.schedule import Progress
from toolkit.providers.base import Unavailable
from toolkit.providers.null import NullProvider
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

NullModelFile = Callable[..., str]
MS = 1_000_000


def renamed(name: str, **changes: object) -> Target:
    return msgspec.structs.replace(Target(name=name, provider="null"), **changes)


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """MatMul and Relu, 64 wide, dynamic batch."""
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64]) for name in "xy")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "mlp", [x], [y], [numpy_helper.from_array(weights, "w")])
    path = tmp_path / "mlp.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_model_that_takes_twice_as_long_is_slower_and_a_twin_is_not(null_model: NullModelFile) -> None:
    files = [
        null_model(f"{name}.json", delay_ns=delay) for name, delay in (("a", 4 * MS), ("b", 8 * MS), ("c", 4 * MS))
    ]
    report = toolkit.profile(files, "null", budget_s=5, processes=2)
    assert [case.status for case in report.cases] == ["ok"] * 3
    slower, twin = report.comparisons
    assert (slower.baseline, slower.candidate, slower.verdict) == ("a.json@null", "b.json@null", "slower")
    assert slower.ratio == pytest.approx(2, rel=0.2)
    assert slower.ratio_ci is not None and slower.ratio_ci[0] < slower.ratio < slower.ratio_ci[1]
    assert twin.verdict == "no significant difference"
    assert twin.processes == 2


def test_the_report_has_the_fields_that_are_promised(null_model: NullModelFile) -> None:
    report = toolkit.profile(null_model(delay_ns=MS), "null", batches=[2], budget_s=1, processes=2)
    plain = json.loads(report.to_json())
    assert plain["schema_version"] == 2
    assert plain["environment"]["fingerprint"]
    (case,) = plain["cases"]
    assert case["samples_ns"] and sum(block[2] for block in case["blocks"]) == len(case["samples_ns"])
    promised = {
        "model", "target", "provider", "precision", "batch", "dims", "status", "reason", "latency_ns", "samples_ns",
        "throughput_per_s", "import_ns", "load_ns", "first_inference_ns", "peak_memory_bytes", "execution", "warnings",
    }  # fmt: skip
    assert promised <= set(case)
    assert {"p50", "p50_ci", "p90", "p99", "withheld"} <= set(case["latency_ns"])
    assert {"nodes_by_provider", "executed_precision", "threads", "device"} <= set(case["execution"])
    assert (case["batch"], case["precision"], case["provider"]) == (2, "float32", "null")
    low, high = case["latency_ns"]["p50_ci"]
    assert low <= case["latency_ns"]["p50"] <= high
    assert case["throughput_per_s"] == pytest.approx(2e9 / np.mean(case["samples_ns"]))
    assert case["latency_ns"]["p99"] is None or len(case["samples_ns"]) >= 662
    assert msgspec.json.decode(report.to_json(), type=ProfileReport) == report


def test_batches_and_dims_are_compared_with_their_own_baseline(null_model: NullModelFile) -> None:
    specs = (TensorSpec("ids", "int64", ("batch", "seq")),)
    files = [null_model(f"{name}.json", inputs=specs, outputs=specs, delay_ns=MS) for name in "ab"]
    report = toolkit.profile(files, "null", batches=[1, 4], dims={"seq": 7}, budget_s=1, processes=1)
    assert [(case.batch, case.dims) for case in report.cases] == [(1, {"seq": 7}), (4, {"seq": 7})] * 2
    assert {(item.baseline, item.candidate) for item in report.comparisons} == {
        ("a.json@null[batch=1,seq=7]", "b.json@null[batch=1,seq=7]"),
        ("a.json@null[batch=4,seq=7]", "b.json@null[batch=4,seq=7]"),
    }


def test_models_of_different_groups_are_not_compared(null_model: NullModelFile) -> None:
    models = [
        Model(name=name, path=null_model(f"{name}.json", delay_ns=MS), kind="file", group=group)
        for name, group in (("a", "one"), ("b", "two"), ("c", "two"))
    ]
    report = toolkit.profile(models, "null", budget_s=0.5, processes=1)
    assert [(item.baseline, item.candidate) for item in report.comparisons] == [("b@null", "c@null")]


def test_the_baseline_can_be_named(null_model: NullModelFile) -> None:
    file = null_model(delay_ns=MS)
    targets = [renamed("one"), renamed("two")]
    report = toolkit.profile(file, targets, baseline="two", budget_s=0.5, processes=1)
    assert [item.baseline for item in report.comparisons] == ["model.json@two"]
    with pytest.raises(UsageError, match="--baseline: no measured case is called that"):
        toolkit.profile(file, targets, baseline="three", budget_s=0.5)


@pytest.mark.parametrize("failure", ["exit", "segfault", "raise"])
def test_a_case_that_fails_is_reported_and_the_others_are_measured(null_model: NullModelFile, failure: str) -> None:
    bad = null_model("bad.json", failure=failure, fail_after=20)
    good = null_model("good.json", delay_ns=MS)
    report = toolkit.profile([bad, good], "null", budget_s=1, processes=1)
    failed, fine = report.cases
    assert failed.status == "failed" and failed.reason and failed.latency_ns is None
    assert fine.status == "ok" and fine.latency_ns is not None
    assert report.comparisons == []


def test_a_target_that_is_named_but_absent_is_an_error_and_nothing_runs(
    null_model: NullModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NullProvider, "probe", lambda self, device="": Unavailable("it is a test", "end the test"))
    started = []
    monkeypatch.setattr("toolkit.profiler.api.ProcessWorker", lambda **_: started.append(1))
    with pytest.raises(ProviderUnavailable, match="null is not available: it is a test; end the test"):
        toolkit.profile(null_model(), ["null"])
    assert started == []


def test_all_goes_on_and_lists_what_is_absent(mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {
        "here": Target(name="here", provider="cpu", threads=1),
        "int8": Target(name="int8", provider="cpu", precisions=("int8",)),
        "gone": Target(name="gone", provider="cpu", device="7"),
    }
    monkeypatch.setattr("toolkit.profiler.planning.shipped_targets", lambda: shipped)
    report = toolkit.profile(mlp, "all", budget_s=0.5, processes=1)
    status = {case.target: (case.status, case.reason) for case in report.cases}
    assert status["here"] == ("ok", "")
    assert status["int8"] == ("not_applicable", "the file is float32; the target takes int8")
    assert status["gone"] == ("unavailable", "the CPU has no device '7'; leave the device out: cpu")


def test_a_fixed_batch_is_measured_as_it_is_and_not_at_other_sizes(null_model: NullModelFile) -> None:
    fixed = null_model(inputs=(TensorSpec("x", "float32", (4, 3)),), outputs=(), delay_ns=MS)
    report = toolkit.profile(fixed, "null", batches=[4, 8], budget_s=0.3, processes=1)
    assert [(case.batch, case.status) for case in report.cases] == [(4, "ok"), (8, "not_applicable")]
    assert report.cases[1].reason == "the batch is fixed at 4 in the model"
    assert toolkit.profile(fixed, "null", budget_s=0.1, processes=1).cases[0].batch == 4


def test_engines_say_what_ran_and_an_application_could_repeat_it(mlp: Path) -> None:
    report = toolkit.profile(mlp, ["cpu", "openvino-f32"], batches=[8], budget_s=1, processes=1)
    cpu, openvino = report.cases
    assert (cpu.status, openvino.status) == ("ok", "ok")
    assert cpu.execution is not None and cpu.execution.nodes_by_provider == {"CPUExecutionProvider": 2}
    assert openvino.execution is not None and set(openvino.execution.executed_precision) == {"float32"}
    assert cpu.load_ns and cpu.first_inference_ns and cpu.import_ns
    assert cpu.peak_memory_bytes and cpu.base_memory_bytes and cpu.peak_memory_bytes > cpu.base_memory_bytes
    assert [item.candidate for item in report.comparisons] == ["mlp.onnx@openvino-f32[batch=8]"]


def test_real_samples_are_fed(mlp: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((10, 64), np.float32))
    report = toolkit.profile(mlp, "cpu", data=tmp_path / "data.npz", batches=[4], budget_s=0.3, processes=1)
    assert report.cases[0].status == "ok"
    assert report.settings["data"].endswith("data.npz")
    with pytest.raises(UsageError, match="too few samples for one batch"):
        toolkit.profile(mlp, "cpu", data=tmp_path / "data.npz", batches=[11], budget_s=0.3, processes=1)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"targets": "cpuu"}, "unknown target"),
        ({"targets": "null", "budget_s": 0}, "the budget is a positive time"),
        ({"targets": "null", "batches": [0]}, "one sample or more"),
        ({"targets": "null", "processes": 0}, "needs a process"),
        ({"targets": "null", "seed": -1}, "a seed is 0 or more"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(
    null_model: NullModelFile, wish: dict[str, object], message: str
) -> None:
    with pytest.raises((UsageError, InvalidTarget), match=message):
        toolkit.profile(null_model(), **wish)  # type: ignore[arg-type]


def test_no_model_and_no_such_dim(mlp: Path) -> None:
    with pytest.raises(UsageError, match="no model to measure"):
        toolkit.profile([])
    with pytest.raises(UsageError, match="--dim: no model has such a dim; got sequence"):
        toolkit.profile(mlp, dims={"sequence": 3})


def test_progress_is_told(null_model: NullModelFile) -> None:
    told: list[Progress] = []
    toolkit.profile(null_model(delay_ns=MS), "null", budget_s=0.3, processes=1, on_progress=told.append)
    assert told[0].text == "opening model.json@null"
    assert told[-1].text == "checking what ran: model.json@null"


def test_ctrl_c_ends_soon_with_what_was_measured_and_leaves_no_process(
    null_model: NullModelFile, tmp_path: Path
) -> None:
    file = null_model(delay_ns=MS)
    code = (
        "import sys, toolkit\n"
        f"report = toolkit.profile({file!r}, 'null', budget_s=600, processes=1,\n"
        "    on_progress=lambda p: print(p.text, flush=True))\n"
        "print('REPORT', report.interrupted, report.cases[0].status, len(report.cases[0].samples_ns) > 0)\n"
    )
    # What a shell runs in the background ignores Ctrl-C, and so would its children.
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = 0
    while seen < 5:
        seen += process.stdout.readline().startswith("measuring")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert rest.strip().splitlines()[-1] == "REPORT True ok True"
    assert psutil.wait_procs(children, timeout=20)[1] == []
