"""``toolkit profile --accuracy``: real models and engines, and processes that crash."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from toolkit.cli import accuracy, main, scoring
from toolkit.cli.accuracy import Job, require_scores, with_accuracy
from toolkit.data import write_npz
from toolkit.errors import ToolkitError, UsageError
from toolkit.evaluator.report import EvaluationReport
from toolkit.profiler.cases import Case
from toolkit.profiler.records import ProfileReport
from toolkit.targets import shipped_targets

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SAMPLES = np.random.default_rng(0).random((40, 6), dtype=np.float32)
LABELS = SAMPLES[:, :4].argmax(1)
FACTORY = """
import torch
from toolkit.tensors import TensorSpec
INPUTS = (TensorSpec("x", "float32", ("batch", 6)),)
OUTPUTS = ("logits",)
class Pick(torch.nn.Module):
    def forward(self, x):
        return x[:, :4]
def pick():
    return Pick()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The first four of six numbers are the scores: right on every sample."""
    text = '<ir_version: 8, opset_import: ["" : 17]> pick (float[batch,6] x) => (float[batch,4] logits) '
    found = onnx.parser.parse_model(text + "{ logits = MatMul(x, w) }")
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(6, 4, dtype=np.float32), "w"))
    path = tmp_path / "pick.onnx"
    onnx.save(found, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    wrong = np.where(np.arange(40) < 10, (LABELS + 1) % 4, LABELS)
    return write_npz(tmp_path / "data.npz", {"x": SAMPLES, "labels": wrong})


def profiled(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, ProfileReport, str]:
    options = ("--budget", "0.3s", "--processes", "1", "--format", "json", "--accuracy", "--no-history")
    code = main.run(["profile", *map(str, args), *options])
    out, err = capsys.readouterr()
    return code, msgspec.json.decode(out, type=ProfileReport), err


def test_each_case_is_scored_on_its_target(capsys: pytest.CaptureFixture[str], model: Path, data: Path) -> None:
    code, report, err = profiled(capsys, model, "--data", data, "--batch", "1,2")
    assert code == 0, err
    assert err.count("scoring pick.onnx on cpu") == 1  # once per target, whatever the batch
    for case in report.measured:
        assert case.accuracy is not None
        assert (case.accuracy.metric, case.accuracy.value, case.accuracy.samples) == ("accuracy", 0.75, 40)
        low, high = case.accuracy.interval or (0, 0)
        assert low < 0.75 < high


def test_torch_sources_are_scored_too(capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "factory.py").write_text(FACTORY)
    code, report, err = profiled(capsys, f"{tmp_path}/factory.py:pick", "--target", "torch-eager", "--data", data)
    assert code == 0, err
    assert report.cases[0].accuracy and report.cases[0].accuracy.value == 0.75


def test_data_without_labels_costs_the_score_and_not_the_latency(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    data = write_npz(tmp_path / "bare.npz", {"x": SAMPLES})
    code, report, err = profiled(capsys, model, "--data", data)
    assert code == 1
    assert report.measured[0].latency_ns and report.measured[0].accuracy is None
    assert report.measured[0].warnings[-1].startswith("its quality is not known: ")
    assert "cannot tell what to score" in err.splitlines()[-1]


def test_without_data_it_is_misuse(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    assert main.run(["profile", str(model), "--accuracy"]) == 2
    assert capsys.readouterr().err == "error: --accuracy: nothing to score on; give labelled samples: --data\n"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process was killed by SIGSEGV"),
        ("import sys; print('out of luck', file=sys.stderr); sys.exit(7)", "exit code 7: out of luck"),
    ],
)
def test_a_crash_costs_its_own_score(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    code: str, problem: str,
) -> None:  # fmt: skip
    """A real process that ends badly stands in for the scoring one."""
    _, report, _ = profiled(capsys, model, "--data", data)
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(accuracy.sys, "executable", str(program))
    bare = msgspec.structs.replace(report, cases=[msgspec.structs.replace(c, accuracy=None) for c in report.cases])
    found = with_accuracy(bare, [str(model)], ["cpu"], data)
    assert problem in found.measured[0].warnings[-1]
    with pytest.raises(ToolkitError, match="the quality of 1 of 1 cases is not known"):
        require_scores(found)


def test_ctrl_c_ends_the_scoring_and_keeps_the_rest(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, report, _ = profiled(capsys, model, "--data", data)
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -INT $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(accuracy.sys, "executable", str(program))
    found = with_accuracy(report, [str(model)], ["cpu"], data)
    assert found.interrupted
    assert found.cases == report.cases


def test_the_telling_metric() -> None:
    found = EvaluationReport(
        model="m", target="cpu", provider="cpu", task="t", data="d", data_sha256=None, samples=5, intervals={},
        metrics={"nats_per_token": 1.0, "perplexity": 2.7}, errors=None, non_finite=0, per_class=(), confusion=None,
    )  # fmt: skip
    assert scoring.telling(found).metric == "perplexity"
    assert scoring.telling(msgspec.structs.replace(found, metrics={"own": 3.0})).metric == "own"
    with pytest.raises(UsageError, match="no metric"):
        scoring.telling(msgspec.structs.replace(found, metrics={}))


def test_a_job_travels_as_json(model: Path, data: Path) -> None:
    target = shipped_targets()["cpu-fp32"]
    job = Job(Case(model="pick", path=str(model), target=target), str(data))
    answered = scoring.answer(msgspec.json.encode(job))
    assert answered.record and answered.record.value == 0.75
    assert json.loads(msgspec.json.encode(answered))["problem"] == ""
