"""``toolkit evaluate``: on files and bundles, with what was recorded with the model, in 80 columns and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.cli import main
from toolkit.data import write_npz
from toolkit.preprocess import InputSteps, Layout, Preprocessing, Reshape, Scale

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 17, (40, 2, 3), dtype=np.uint8)
LABELS = IMAGES.reshape(40, 6)[:, :4].argmax(1)
RECIPE = Preprocessing(
    (InputSteps("x", (Layout("NHW", "NWH"), Layout("NWH", "NHW"), Reshape((6,)), Scale(1 / 16)), "image"),)
)


def save_model(path: Path, batch: int | str = "batch", metadata: bool = True) -> Path:
    """Four of six numbers are the scores: right on every sample but for ties."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "pick",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(np.eye(6, 4, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        recorded = {
            "toolkit.preprocessing": RECIPE.to_json(),
            "toolkit.labels": json.dumps(["north", "east", "south", "a class with quite a long name"]),
            "toolkit.task": "image-classification",
        }
        helper.set_model_props(model, recorded)
    onnx.save(model, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "data.npz", {"image": IMAGES, "labels": LABELS})


def outcome(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main.run([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_table_has_metrics_classes_and_confusions(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = outcome(capsys, "evaluate", save_model(tmp_path / "m.onnx"), "--data", data, "--top-k", "1,2")
    assert (code, err) == (0, "")
    assert "task    image-classification" in out
    assert "accuracy                  1.0000   0.9124 … 1.0000" in out
    assert "top_2_accuracy" in out and "top_5_accuracy" not in out
    assert "0 wrong" in out and "a class with quite a…" in out
    assert f"north{'':<13}{np.bincount(LABELS)[0]:>6}" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("batch", ["batch", 16])
def test_json_says_the_same_on_any_batch_size(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], batch: int | str
) -> None:
    model = save_model(tmp_path / "m.onnx", batch)
    code, out, _ = outcome(capsys, "evaluate", model, "--data", data, "--format", "json", "--batch", 7, "--limit", 30)
    found = json.loads(out)
    assert code == 0 and found["schema_version"] == 1
    assert (found["samples"], found["errors"], found["metrics"]["accuracy"]) == (30, 0, 1.0)
    assert found["labels"][0] == "north" and found["target"] == "cpu" and len(found["data_sha256"]) == 64


def test_a_bundle_brings_what_its_manifest_records(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "b"
    model = save_model(tmp_path / "m.onnx")
    code, _, err = outcome(capsys, "bundle", "create", model, "--target", "cpu", "-o", bundle)
    assert code == 0, err
    code, out, err = outcome(capsys, "evaluate", bundle, "--data", data, "--format", "json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["accuracy"] == 1.0


def test_openvino_agrees(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    model = save_model(tmp_path / "m.onnx")
    code, out, _ = outcome(capsys, "evaluate", model, "--data", data, "--target", "openvino", "--format", "json")
    assert code == 0 and json.loads(out)["metrics"]["accuracy"] == 1.0


def test_a_metric_and_data_from_python_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def batches():\n    yield {'x': np.eye(6, dtype=np.float32)}\n"
        "def total(outputs, labels): return outputs['logits'].sum()\n"
    )
    model = save_model(tmp_path / "m.onnx", metadata=False)
    code, out, err = outcome(
        capsys, "evaluate", model, "--data", f"{tmp_path}/mine.py:batches", "--metric", f"{tmp_path}/mine.py:total"
    )
    assert code == 0, err
    assert "total                     4.0000" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--data", "nothing.npz"], 2, "nothing.npz: no such data file"),
        (["--top-k", "0"], 2, "expected numbers, e.g. 1,5"),
        (["--task", "sorting"], 2, "no metrics for this task"),
        (["--target", "cupu"], 2, "unknown target"),
        (["--preprocessing", "{tmp}/bad.json"], 2, "the preprocessing does not hold"),
        (["--preprocessing", "{tmp}/other.json"], 2, "there is no array 'pixels', which the model needs"),
        (["--metric", "no_such_module:f"], 2, "cannot import this module"),
        (["--limit", "0"], 2, "--limit"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text('{"inputs": [{"input": "x", "source": "pixels"}]}')
    options = [option.replace("{tmp}", str(tmp_path)) for option in options]
    found, out, err = outcome(capsys, "evaluate", save_model(tmp_path / "m.onnx"), "--data", data, *options)
    assert (found, out) == (code, "")
    assert message in err and err.count("\n") == 1


def test_a_target_that_takes_no_such_file_is_not_applicable(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("evaluate", save_model(tmp_path / "m.onnx"), "--data", data, "--target", "cpu-int8")
    code, out, err = outcome(capsys, *args)
    assert (code, out) == (1, "")
    assert "m.onnx on cpu-int8: the file is float32, the target takes int8" in err and err.count("\n") == 1


def test_a_broken_model_is_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("not a model")
    code, out, err = outcome(capsys, "evaluate", path, "--data", data)
    assert (code, out) == (2, "") and err.count("\n") == 1


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_labels_of_a_float_type_count_where_they_are_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metadata: bool, shift: float
) -> None:
    model = save_model(tmp_path / "m.onnx", metadata=metadata)
    x = IMAGES.reshape(40, 6).astype(np.float32)
    data = write_npz(
        tmp_path / "float.npz", {"image" if metadata else "x": IMAGES if metadata else x, "labels": LABELS + shift}
    )
    code, out, err = outcome(capsys, "evaluate", model, "--data", data)
    if shift == 0.0:
        assert code == 0 and "accuracy" in out
        return
    assert (code, out) == (2, "")
    assert "labels are no class numbers; got float64 [32]; expected whole numbers" in err
    assert err.count("\n") == 1
