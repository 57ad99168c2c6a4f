"""``toolkit verify``: the verdict on stdout, the reason on stderr, exit code 3 when two models differ."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from toolkit.cli.main import run


def write(path: Path, operator: str) -> None:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "one", info[:1], info[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize("output_format", ["table", "json"])
def test_a_difference_is_exit_3_with_the_reason_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, output_format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.onnx", "Tanh")
    write(tmp_path / "b.onnx", "Sigmoid")
    assert run(["verify", "a.onnx", "b.onnx", "--format", output_format]) == 3
    out, err = capsys.readouterr()
    assert err.startswith("error: b.onnx: the two models do not agree; got output 'y'")
    assert err.count("\n") == 1
    if output_format == "json":
        assert json.loads(out)["passed"] is False
    assert run(["verify", "a.onnx", "a.onnx"]) == 0
    assert capsys.readouterr().err == ""
