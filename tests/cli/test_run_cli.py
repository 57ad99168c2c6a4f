"""``toolkit run`` and ``toolkit bundle``, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from toolkit.cli.main import run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    path = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(tmp_path / "in.npz", x=np.ones((2, 3), np.float32), labels=np.zeros(2, np.int64))
    return path


def test_run_writes_the_outputs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["run", "double.onnx", "--input", "in.npz", "-o", "out.npz", "--target", "cpu", "--format", "json"]
    assert run(args) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {"y": {"dtype": "float32", "shape": [2, 3]}}
    with np.load("out.npz") as outputs:
        np.testing.assert_array_equal(outputs["y"], np.full((2, 3), 2, np.float32))
    first = Path("out.npz").read_bytes()
    assert run(args) == 0
    assert Path("out.npz").read_bytes() == first


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.ones((2, 3), np.float32)}, "no such input"),
        ({"x": np.ones((2, 3), np.float64)}, "wrong dtype"),
        ({"x": np.ones(3, np.float32)}, "wrong rank"),
        ({"x": np.ones((2, 4), np.float32)}, "wrong size in axis 1"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line_and_leave_no_file(
    model: Path, capsys: pytest.CaptureFixture[str], arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez("bad.npz", **arrays)
    assert run(["run", "double.onnx", "--input", "bad.npz", "-o", "out.npz", "--target", "cpu"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_broken_npz_is_one_line(model: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    Path("bad.npz").write_bytes(content)
    assert run(["run", "double.onnx", "--input", "bad.npz", "-o", "out.npz", "--target", "cpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_text_called_npz_is_said_to_be_none(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.npz").write_text("hello there")
    assert run(["run", "double.onnx", "--input", "bad.npz", "-o", "out.npz"]) == 2
    err = capsys.readouterr().err
    assert "not an .npz file" in err and "pickle" not in err


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_arrays_without_rows_are_no_samples(model: Path, capsys: pytest.CaptureFixture[str], target: str) -> None:
    np.savez("none.npz", x=np.ones((0, 3), np.float32), labels=np.zeros(0, np.int64))
    assert run(["run", "double.onnx", "--input", "none.npz", "-o", "out.npz", "--target", target]) == 2
    assert capsys.readouterr().err == "error: none.npz: holds no samples; got arrays of length 0\n"
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("target", ["cpu", "openvino", "auto"])
@pytest.mark.parametrize("at", range(0, 100, 7))
def test_a_damaged_model_is_the_users_to_mend_on_every_engine(
    model: Path, capsys: pytest.CaptureFixture[str], target: str, at: int
) -> None:
    content = bytearray(model.read_bytes())
    content[at % len(content)] ^= 0xFF
    Path("bad.onnx").write_bytes(content)
    inspected = run(["inspect", "bad.onnx", "--no-placement"])
    capsys.readouterr()
    code = run(["run", "bad.onnx", "--input", "in.npz", "-o", "out.npz", "--target", target])
    err = capsys.readouterr().err
    assert err.count("\n") == (code != 0)
    if inspected == 2:
        assert code in (0, 2), err


def test_what_was_written_is_what_the_message_names(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--target", "--provider"):
        assert run(["run", "double.onnx", "--input", "in.npz", "-o", "out.npz", option, "cpux"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option}: unknown target; got 'cpux'; expected 'cpu'")
    assert run(["run", "double.onnx", "--input", "in.npz", "-o", "out.npz", "--provider", "cpu"]) == 0
    both = ["run", "double.onnx", "--input", "in.npz", "-o", "out.npz", "--provider", "cpu", "--target", "openvino"]
    assert run(both) == 2


def test_an_npz_with_pickles_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("bad.npz", x=np.array([{}], dtype=object))
    assert run(["run", "double.onnx", "--input", "bad.npz", "-o", "out.npz", "--target", "cpu"]) == 2
    assert "plain arrays" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_found_first(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output in ("no/such/out.npz", "."):
        assert run(["run", "double.onnx", "--input", "in.npz", "-o", output, "--target", "cpu"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_bundle_from_create_to_run(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "create", "double.onnx", "-o", "m.bundle", "--target", "cpu"]) == 0
    assert run(["bundle", "add", "m.bundle", "double.onnx", "--target", "openvino"]) == 0
    assert run(["bundle", "verify", "m.bundle"]) == 0
    assert run(["bundle", "pack", "m.bundle", "-o", "m.zip"]) == 0
    capsys.readouterr()
    for path in ("m.bundle", "m.zip"):
        for target in ("cpu", "openvino"):
            args = ["run", path, "--input", "in.npz", "-o", "out.npz", "--target", target, "--format", "json"]
            assert run(args) == 0
            assert json.loads(capsys.readouterr().out)["provider"] == target


def test_a_file_with_other_inputs_is_not_added(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = onnx.load(model)
    other.graph.input[0].name = other.graph.node[0].input[0] = other.graph.node[0].input[1] = "other"
    onnx.save(other, "other.onnx")
    assert run(["bundle", "create", "double.onnx", "-o", "m.bundle", "--target", "cpu"]) == 0
    before = sorted(Path("m.bundle").rglob("*"))
    assert run(["bundle", "add", "m.bundle", "other.onnx", "--target", "openvino"]) == 2
    assert "inputs differ" in capsys.readouterr().err
    assert sorted(Path("m.bundle").rglob("*")) == before


def test_a_damaged_bundle_fails_verify(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "create", "double.onnx", "-o", "m.bundle", "--target", "cpu"]) == 0
    file = next(Path("m.bundle/variants").rglob("*.onnx"))
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert run(["bundle", "verify", "m.bundle"]) == 2
    assert "changed after" in capsys.readouterr().err
