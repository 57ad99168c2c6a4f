from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.graph.building import normal, write
from toolkit.cli.inspect import inspect, quantity
from toolkit.cli.main import run

TEXT = """net (float[batch, 3, height, width] x, int64[batch] unused) => (float[batch, 4, a, b] y) {
    c = Conv<pads=[1, 1, 1, 1]>(x, w) y = Relu(c)
}"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "net.onnx", TEXT, weights={"w": normal(4, 3, 3, 3)})


def test_the_table_fits_a_terminal_and_says_it_all(path: Path) -> None:
    result = CliRunner().invoke(inspect, [str(path), "--dim", "height=10", "--dim", "width=20"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert all(len(line) <= 80 for line in lines if str(path.parent) not in line)
    for expected in (
        "17 (IR version 8)",
        "x:float32[batch,3,height,width]",
        "batch, height, width",
        "108 parameters, 2 nodes",
        "At height=10 width=20 batch=1: 44 kFLOP",
        "OPERATOR  NODES  FLOP",
        "cpu       takes all 2 nodes",
    ):
        assert expected in result.output, expected
    assert "cuda" in result.output
    assert "tensorrt" in result.output


def test_json_has_the_same_in_numbers(path: Path) -> None:
    result = CliRunner().invoke(inspect, [str(path), "--dim", "height=10", "--dim", "width=20", "--format", "json"])
    found = json.loads(result.stdout)
    assert found["schema_version"] == 1
    assert found["facts"]["operators"] == {"Conv": 1, "Relu": 1}
    assert found["cost"]["flops"] == 4 * 200 * (2 * 27 + 1)
    assert found["cost"]["dims"] == {"batch": 1, "height": 10, "width": 20}
    by_name = {view["provider"]: view for view in found["providers"]}
    assert by_name["cpu"]["status"] == "ready"
    assert by_name["cpu"]["taken"] == {"Conv": 1, "Relu": 1}
    for view in by_name.values():
        assert view["status"] in ("ready", "unavailable", "refused")
        assert (view["reason"] == "") == (view["status"] == "ready")
        assert view["remedy"] or view["status"] != "unavailable"


def test_without_placement_no_engine_is_asked(path: Path) -> None:
    result = CliRunner().invoke(inspect, [str(path), "--no-placement", "--format", "json"])
    assert json.loads(result.stdout)["providers"] == []


def test_an_old_opset_is_shown_and_the_remedy_named(tmp_path: Path) -> None:
    old = write(tmp_path / "old.onnx", "g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=6, ir_version=3)
    result = CliRunner().invoke(inspect, [str(old), "--format", "json"])
    assert result.exit_code == 0
    by_name = {view["provider"]: view for view in json.loads(result.stdout)["providers"]}
    assert by_name["cpu"]["status"] == "refused"
    assert "-o NEW.onnx --opset 17" in by_name["cpu"]["reason"]


def test_a_precision_that_a_provider_does_not_run_is_said(tmp_path: Path) -> None:
    brain = write(tmp_path / "b.onnx", "g (bfloat16[2] x) => (bfloat16[2] y) { y = Relu(x) }")
    result = CliRunner().invoke(inspect, [str(brain)])
    assert "it runs no bfloat16 files" in result.output


def test_metadata_is_cut_and_unknown_nodes_are_said(tmp_path: Path) -> None:
    text = "g (float[2] x) => (float[a] y) { y = com.x.Odd(x) }"
    odd = write(tmp_path / "odd.onnx", text, imports=', "com.x" : 1')
    result = CliRunner().invoke(inspect, [str(odd)])
    assert result.exit_code == 0
    assert "In no sum above: com.x.Odd: a shape is not known (1)" in " ".join(result.output.split())
    assert "does not run this file" in result.output


@pytest.mark.parametrize(
    "arguments", [["none.onnx"], ["."], ["net.onnx", "--dim", "depth=3"], ["net.onnx", "--dim", "x"]]
)
def test_misuse_is_one_line_and_exit_code_two(
    path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    assert run(["inspect", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_quantities() -> None:
    assert [quantity(value) for value in (0, 999, 1000, 5_986_248_000, 2.5e12)] == [
        "0 ",
        "999 ",
        "1 k",
        "5.99 G",
        "2.5 T",
    ]
