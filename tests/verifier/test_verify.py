from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import toolkit
from tests.verifier.conftest import Write
from toolkit.cli.main import run
from toolkit.errors import ParityError, UsageError
from toolkit.verifier.api import verify

LINEAR = """
m (float[batch,4] x) => (float[batch,4] y)
<float[4] w = {1, 2, 3, 4}>
{ t = Mul(x, w) y = Add(t, w) }
"""


@pytest.fixture
def linear(write: Write) -> Path:
    return write("linear", LINEAR)


def test_a_model_agrees_with_itself_at_every_shape(linear: Path) -> None:
    report = verify(linear, linear)
    assert report.passed and report.reason == ""
    assert [case.label for case in report.cases] == ["usual", "smallest", "larger"]
    assert report.require() is report
    assert report.tolerance.name == "float32"
    assert report.worst()[0].max_abs == 0.0


def test_another_formula_fails_and_names_output_case_and_error(linear: Path, write: Write) -> None:
    other = write("other", LINEAR.replace("{1, 2, 3, 4}", "{1, 2, 3, 4.01}"))
    report = verify(linear, other)
    assert not report.passed
    assert "output 'y', case 'usual' (batch=2)" in report.reason and "largest error" in report.reason
    with pytest.raises(ParityError, match=r"other\.onnx: the two models do not agree"):
        report.require()


def test_a_frozen_dim_is_found_at_an_unseen_size(write: Write) -> None:
    free = write("free", "m (float[batch,4] x) => (float[batch,2,2] y)\n<int64[3] s = {-1,2,2}>{ y = Reshape(x, s) }")
    frozen = write(
        "frozen", "m (float[batch,4] x) => (float[batch,2,2] y)\n<int64[3] s = {2,2,2}>{ y = Reshape(x, s) }"
    )
    report = verify(free, frozen)
    assert not report.passed and "the candidate does not run" in report.reason
    assert not report.cases[0].failures  # at the traced size nothing shows


def test_outputs_pair_by_order_when_their_names_differ(linear: Path, write: Write) -> None:
    renamed = write("renamed", LINEAR.replace("y", "z"))
    report = verify(linear, renamed)
    assert report.passed and "in their order" in report.notes[0]


def test_a_missing_output_fails(linear: Path, write: Write) -> None:
    two = write("two", LINEAR.replace("=> (float[batch,4] y)", "=> (float[batch,4] y, float[batch,4] t)"))
    assert not verify(two, linear).passed
    assert verify(linear, two).passed


def test_fixed_dims_of_the_candidate_are_fed(linear: Path, write: Write) -> None:
    fixed = write("fixed", LINEAR.replace("batch", "1"))
    report = verify(linear, fixed)
    assert report.passed
    assert [case.label for case in report.cases] == ["fixed"]


def test_sizes_the_reference_refuses_are_skipped_and_said(write: Write) -> None:
    halves = write(
        "halves",
        "m (float[batch,n] x) => (float[batch,k,8] y)\n<int64[3] s = {0,-1,8}>{ y = Reshape(x, s) }",
    )
    report = verify(halves, halves)
    assert report.passed
    assert {case.label: case.dims["n"] for case in report.cases} == {"usual": 16, "smallest": 8, "larger batch": 16}
    assert set(report.skipped) == {"larger", "larger n"}
    with pytest.raises(UsageError, match="ran at none of the shapes"):
        verify(halves, halves, dims={"n": 3})


def test_sessions_data_and_other_engines(linear: Path) -> None:
    batches = [{"x": np.ones((3, 4), np.float32)}, {"x": np.zeros((1, 4), np.float32)}]
    with toolkit.load(linear, "cpu") as session:
        report = verify(session, linear, target="openvino", data=batches)
        assert session({"x": batches[0]["x"]})["y"].shape == (3, 4)  # still open
    assert report.passed
    assert (report.reference_target, report.target) == ("cpu", "openvino")
    assert [case.label for case in report.cases][-2:] == ["data 0", "data 1"]


def test_argmax_ties_are_forgiven_and_other_indices_are_not(write: Write) -> None:
    graph = (
        "m (float[batch,3] x) => (int64[batch] y)\n<float[3] w = {W}>{ s = Mul(x, w) y = ArgMax<axis=1,keepdims=0>(s) }"
    )
    reference = write("reference", graph.replace("W", "1, 1, 0.5"))
    tied = write("tied", graph.replace("W", "0.99999, 1, 0.5"))
    wrong = write("wrong", graph.replace("W", "0.9, 1, 0.5"))
    feeds = [{"x": np.ones((4, 3), np.float32)}]
    report = verify(reference, tied, data=feeds)
    assert report.cases[-1].outputs[0].mismatches == 4 and report.cases[-1].ties == {"y": 4}
    assert report.passed
    report = verify(reference, wrong, data=feeds)
    assert not report.passed and "differ and are no ties" in report.reason


def test_booleans_near_their_threshold_are_ties(write: Write) -> None:
    graph = "m (float[batch,3] x) => (bool[batch,3] y)\n<float[1] w = {W}>{ y = Greater(x, w) }"
    feeds = [{"x": np.full((2, 3), 1.0, np.float32)}]
    reference = write("reference", graph.replace("W", "1"))
    assert verify(reference, write("close", graph.replace("W", "0.99999")), data=feeds).passed
    assert not verify(reference, write("far", graph.replace("W", "0.9")), data=feeds).passed


def test_topk_indices_that_tie(write: Write) -> None:
    graph = """m (float[batch,4] x) => (int64[batch,2] i)
    <float[4] w = {W}, int64[1] k = {2}>{ s = Mul(x, w) v, i = TopK(s, k) }"""
    feeds = [{"x": np.ones((2, 4), np.float32)}]
    reference = write("reference", graph.replace("W", "3, 2, 2, 1"))
    assert verify(reference, write("tied", graph.replace("W", "3, 2, 2.00001, 1")), data=feeds).passed
    assert not verify(reference, write("far", graph.replace("W", "3, 2, 2.5, 1")), data=feeds).passed


def test_command_prints_a_table_that_fits_and_exits_3(
    linear: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(linear), str(linear)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "passed"
    assert max(map(len, out.splitlines())) <= 80
    other = write("other", LINEAR.replace("4}", "5}"))
    assert run(["verify", str(linear), str(other)]) == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAILED: output 'y'")


def test_command_json(linear: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert run(["verify", str(linear), str(linear), "--format", "json", "--dim", "batch=3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema_version"] == 1 and result["passed"] is True
    assert result["cases"][0]["outputs"][0]["name"] == "y"


def test_command_refuses_what_is_not_a_model(tmp_path: Path, linear: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(linear), str(tmp_path / "none.onnx")]) == 2
    (tmp_path / "text.onnx").write_text("hello")
    assert run(["verify", str(linear), str(tmp_path / "text.onnx")]) == 2
    assert run(["verify", str(linear), str(linear), "--dim", "time=3"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)


def test_data_files_go_through_the_recorded_preprocessing(write: Write, tmp_path: Path) -> None:
    from toolkit.preprocess import InputSteps, Preprocessing, Scale

    path = write("scaled", LINEAR)
    model = onnx.load(path)
    steps = Preprocessing((InputSteps("x", (Scale(0.5),)),))
    onnx.helper.set_model_props(model, {"toolkit.preprocessing": steps.to_json()})
    onnx.save(model, path)
    np.savez(tmp_path / "data.npz", x=np.full((5, 4), 4, np.uint8))
    report = verify(path, path, data=tmp_path / "data.npz", samples=3)
    assert report.passed
    assert report.cases[-1].outputs[0].shape == (3, 4) and report.cases[-1].outputs[0].peak == 12.0


def test_models_with_state_are_stepped_through_data(write: Write, tmp_path: Path) -> None:
    graph = "m (float[1,2] x, float[1,2] s) => (float[1,2] y, float[1,2] t)\n{ t = Add(x, s) y = Mul(t, t) }"
    path = write("state", graph)
    data = tmp_path / "data.npz"
    np.savez(data, x=np.ones((4, 2), np.float32), state_pairs=np.array(["s=t"]))
    report = verify(path, path, data=data)
    assert report.passed
    peaks = {case.label: case.outputs[1].peak for case in report.cases if case.label.startswith("data")}
    assert peaks == {"data 0": 1.0, "data 1": 2.0, "data 2": 3.0, "data 3": 4.0}
