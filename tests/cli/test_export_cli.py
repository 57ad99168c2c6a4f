"""``toolkit export`` as a person uses it: exit codes, one line, nothing half written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from toolkit.cli.main import run

FACTORY = """
import torch
from torch import nn

INPUTS = ["x:float32[batch,4]"]

def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 2)

def bare():
    return nn.Linear(4, 2)

class Rare(nn.Module):
    def forward(self, x):
        return x * 2 if x.max() > 1e6 else x
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    return path


def test_table_and_file(factory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "linear.onnx"
    assert run(["export", f"{factory}:linear", "-o", str(output)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    assert "input      x:float32[batch,4]" in out and "output     output:float32[batch,2]" in out
    assert "made with  dynamo" in out and "reference  torch in float64; the graph ran on cpu" in out
    onnx.checker.check_model(str(output))


def test_json(factory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["export", f"{factory}:linear", "-o", str(tmp_path / "a.onnx"), "--format", "json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["schema_version"] == 1 and result["strategy"] == "dynamo"
    assert result["cases"][0]["outputs"][0]["name"] == "output"
    assert result["attempts"] == [{"strategy": "dynamo", "reason": ""}]


def test_weights_and_inputs_of_the_persons(factory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    weights = tmp_path / "w.pth"
    torch.save({"state_dict": {"module.weight": torch.ones(2, 4), "module.bias": torch.zeros(2)}}, weights)
    output = tmp_path / "w.onnx"
    options = ["--weights", str(weights), "--input", "x:float32[n,4]", "--task", "regression"]
    assert run(["export", f"{factory}:linear", "-o", str(output), *options]) == 0
    out = capfd.readouterr().out
    assert "weights taken from the checkpoint's key 'state_dict'" in " ".join(out.split())
    assert "prefix 'module.' taken off" in " ".join(out.split())
    model = onnx.load(output)
    assert {item.key: item.value for item in model.metadata_props}["toolkit.task"] == "regression"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{factory}:Rare"], 3, "decides in Python by the values of its inputs"),
        (["{factory}:linaer"], 2, "no such factory"),
        (["{factory}:linear", "--input", "x:float[4]"], 2, "unknown dtype"),
        (["{factory}:linear", "--input", "x:float32[batch,5]"], 2, "does not run on inputs of this description"),
        (["{factory}:linear", "--input", "y:float32[batch,4]", "--input", "z:int64[1]"], 2, "no such argument"),
        (["{factory}:linear", "--weights", "{folder}/none.pth"], 2, "no such weights file"),
        (["{factory}:linear", "--weights-key", "model"], 2, "--weights"),
        (["torch.nn:ReLU"], 2, "the source does not say what it takes"),
        (["zoo:resnet51"], 2, "the zoo has no such model"),
        (["{folder}/none.onnx"], 2, "no such model file"),
        (["{folder}"], 2, "no readable config.json"),
        (["what"], 2, "cannot tell what kind of source"),
    ],
)
def test_one_line_the_right_code_and_no_file(
    arguments: list[str], code: int, words: str, factory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    filled = [text.format(factory=factory, folder=tmp_path) for text in arguments]
    before = sorted(tmp_path.iterdir())
    assert run(["export", *filled, "-o", str(tmp_path / "out.onnx")]) == code
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ") and words in err
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_outputs_that_cannot_be_written(factory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for output in (tmp_path, tmp_path / "no" / "out.onnx"):
        assert run(["export", f"{factory}:linear", "-o", str(output)]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_help_imports_no_torch() -> None:
    code = "import sys; from toolkit.cli.main import run; run(['export', '--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
