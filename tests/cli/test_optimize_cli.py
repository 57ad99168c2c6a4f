from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.graph.building import normal, write
from tests.optimizer.breaking import DropRelus
from toolkit.cli.main import run
from toolkit.graph.facts import facts
from toolkit.optimizer import runner

TEXT = "net (float[batch, 4] x) => (float[batch, 3] y) { i = Identity(x) r = Relu(i) y = MatMul(r, w) }"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "net.onnx", TEXT, weights={"w": normal(4, 3)})


def test_the_table_says_what_changed_and_how_it_was_checked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize", "net.onnx", "-o", "small.onnx"]) == 0
    output = capsys.readouterr().out
    assert all(len(line) <= 80 for line in output.splitlines())
    assert "3 → 2" in output
    assert "RemoveIdentity  1" in output
    assert "equal to the last bit" in output
    assert run(["optimize", "small.onnx", "-o", "again.onnx"]) == 0
    assert "No pass found anything to change." in capsys.readouterr().out


def test_json_of_the_report(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dim", "batch=2", "--opset", "21", "--format", "json"]
    assert run(["optimize", "net.onnx", "-o", "small.onnx", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["opset_after"], found["nodes_after"]) == (1, 21, 2)
    assert found["verification"]["passed"] is True
    by_name = {item["name"]: item for item in found["passes"]}
    assert by_name["FixDims"]["details"] == ["batch is 2"]
    assert by_name["UpgradeOpset"]["details"] == ["opset 17 to 21: no node had to change"]
    assert facts("small.onnx").inputs[0].shape == (2, 4)


def test_renaming_skipping_and_leaving_out_the_check(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rename-dim", "batch=n", "--skip", "RemoveIdentity", "--no-check"]
    assert run(["optimize", "net.onnx", "-o", "small.onnx", *arguments]) == 0
    assert facts("small.onnx").dynamic_dims == ("n",)
    assert facts("small.onnx").node_count == 3
    assert "no (--no-check)" in capsys.readouterr().out


def test_a_failed_check_is_exit_code_three_one_line_and_no_file(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "simplifications", lambda growth_bytes=0: (DropRelus(),))
    assert run(["optimize", "net.onnx", "-o", "small.onnx"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "DropRelus changed what the model computes" in error
    assert [entry.name for entry in path.parent.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.onnx", "-o", "b.onnx"],
        ["net.onnx", "-o", "."],
        ["net.onnx", "-o", "none/b.onnx"],
        ["net.onnx", "-o", "b.onnx", "--opset", "12"],
        ["net.onnx", "-o", "b.onnx", "--opset", "999"],
        ["net.onnx", "-o", "b.onnx", "--rename-dim", "batch"],
        ["net.onnx", "-o", "b.onnx", "--rename-dim", "n=m"],
        ["net.onnx", "-o", "b.onnx", "--skip", "FoldEverything"],
        ["net.onnx", "-o", "b.onnx", "--check-dim", "q=3"],
        ["net.onnx"],
    ],
)
def test_misuse_is_one_line_exit_code_two_and_no_file(
    path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["optimize", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["net.onnx"]
