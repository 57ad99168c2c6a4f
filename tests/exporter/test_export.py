"""What can be exported, and what the file then holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import toolkit
from tests.exporter.conftest import Perceptron, X
from toolkit.errors import FileProblem, UsageError
from toolkit.exporter.report import ExportReport
from toolkit.files import sha256
from toolkit.graph.facts import facts

Exported = Callable[..., tuple[Path, ExportReport]]


def test_the_report_says_what_was_made_and_how_it_was_checked(perceptron: tuple[Path, ExportReport]) -> None:
    path, report = perceptron
    assert (report.strategy, report.source, report.reference) == ("dynamo", "Perceptron", "float64")
    assert report.dynamic_dims == ("batch",) and report.opset >= 18
    assert [str(spec) for spec in report.outputs] == ["logits:float32[batch,4]"]
    labels = [case.label for case in report.cases]
    assert labels[:3] == ["traced", "smallest", "unseen batch"] and {"×30", "zeros", "negative"} <= set(labels)
    assert 0 < report.worst_ratio <= 1
    assert report.sha256 == sha256(path)
    assert report.size_bytes == path.stat().st_size


def test_the_graph_runs_like_the_module(perceptron: tuple[Path, ExportReport]) -> None:
    path, _ = perceptron
    x = np.random.default_rng(3).standard_normal((6, 8)).astype(np.float32)
    with toolkit.load(path, "cpu") as session, torch.no_grad():
        np.testing.assert_allclose(session({"x": x})["logits"], Perceptron()(torch.tensor(x))["logits"], atol=1e-6)


def test_the_same_source_gives_the_same_bytes(perceptron: tuple[Path, ExportReport], exported: Exported) -> None:
    again, _ = exported(Perceptron(), [X])
    assert again.read_bytes() == perceptron[0].read_bytes()


def test_nothing_of_this_machine_is_in_the_file(perceptron: tuple[Path, ExportReport]) -> None:
    content = perceptron[0].read_bytes()
    for trace in (str(Path(__file__).parent), str(Path(torch.__file__).parent), "pkg.torch", "stack_trace"):
        assert trace.encode() not in content
    model = onnx.load(perceptron[0])
    assert {item.key for item in model.metadata_props} == {"toolkit.source", "toolkit.export"}
    assert {item.name for item in model.graph.initializer} >= {"first.weight", "second.bias"}


@dataclass
class Detection:
    boxes: Tensor
    found: Tensor
    best: Tensor


class Everything(nn.Module):
    """Several inputs of several types, an optional one, a buffer, tied weights, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(2000, 6)
        self.head = nn.Linear(6, 2000, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.arange(6) / 6)
        self.register_buffer("offset", torch.ones(6), persistent=False)

    def forward(self, ids: Tensor, keep: Tensor, bias: Tensor | None = None) -> dict[str, Any]:
        hidden = self.embed(ids) * self.scale + self.offset
        hidden = torch.where(keep[..., None], hidden, torch.zeros_like(hidden))
        logits = self.head(hidden) if bias is None else self.head(hidden) + bias
        detection = Detection(boxes=hidden.mean(1), found=logits.amax(-1) > 0, best=logits.argmax(-1))
        return {"logits": logits, "detection": detection, "ids": ids, "nothing": None}


INPUTS = ["ids:int64[batch,seq]=0..9", "keep:bool[batch,seq]"]


def test_types_structures_buffers_and_ties(exported: Exported) -> None:
    path, report = exported(Everything(), INPUTS)
    assert [str(spec) for spec in report.outputs] == [
        "logits:float32[batch,seq,2000]",
        "detection.boxes:float32[batch,6]",
        "detection.found:bool[batch,seq]",
        "detection.best:int64[batch,seq]",
        "ids_out:int64[batch,seq]",  # a graph has one space of names
    ]
    shapes = [tuple(item.dims) for item in onnx.load(path).graph.initializer]
    assert shapes.count((2000, 6)) + shapes.count((6, 2000)) == 1  # the tied weight, once
    assert json.loads(facts(path).metadata["toolkit.values"]) == {"ids": [0, 9]}
    assert facts(path).inputs[0].values == (0, 9)


def test_optional_inputs_can_be_given(exported: Exported) -> None:
    path, report = exported(Everything(), [*INPUTS, "bias:float32[2000]"])
    assert [spec.name for spec in report.inputs] == ["ids", "keep", "bias"]
    with toolkit.load(path, "cpu") as session:
        feeds = {
            "ids": np.zeros((1, 3), np.int64),
            "keep": np.ones((1, 3), bool),
            "bias": np.full(2000, 50, np.float32),
        }
        assert session(feeds)["logits"].min() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_stay(dtype: torch.dtype, exported: Exported) -> None:
    name = str(dtype).removeprefix("torch.")
    _, report = exported(Perceptron().to(dtype), [X.replace("float32", name)])
    assert report.precision == name and report.outputs[0].dtype == name
    assert ("float32 copy" in report.engine) == (dtype == torch.bfloat16)


def test_a_program_is_a_source(tmp_path: Path, exported: Exported) -> None:
    path = tmp_path / "model.pt2"
    dims = {"x": {0: torch.export.Dim("n", min=1, max=4096)}}
    torch.export.save(torch.export.export(Perceptron(), (torch.zeros(3, 8),), dynamic_shapes=dims), path)
    _, report = exported(str(path), trust=True)
    assert report.dynamic_dims == ("batch",) and report.source == "model.pt2"


def test_an_onnx_file_is_a_source(perceptron: tuple[Path, ExportReport], exported: Exported) -> None:
    path, report = exported(str(perceptron[0]), opset=21)
    assert (report.strategy, report.opset) == ("graph as it is", 21)
    assert "compared with the original" in report.notes[-1]
    with pytest.raises(UsageError, match="source and output are the same file"):
        toolkit.export(str(path), None, path)


def test_example_tensors_are_inputs(exported: Exported) -> None:
    _, report = exported(Perceptron(), (torch.zeros(3, 8),))
    assert [str(spec) for spec in report.inputs] == ["x:float32[batch,8]"]


def test_scalars_and_integers_without_a_range(exported: Exported) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, by: Tensor, shift: Tensor) -> Tensor:
            return x * by + shift

    _, report = exported(Scaled(), ["x:float32[batch,2]", "by:float32[]", "shift:int64[batch,1]"])
    assert [spec.shape for spec in report.inputs] == [("batch", 2), (), ("batch", 1)]
    assert any("'shift' was only tried with 0 and 1" in note for note in report.notes)


def test_lazy_layers_have_to_run_once(tmp_path: Path, exported: Exported) -> None:
    module = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(UsageError, match=r"a lazy layer has no weights yet; got 0\.weight; call the module once first"):
        toolkit.export(module, ["input:float32[batch,8]"], tmp_path / "out.onnx")
    module(torch.zeros(1, 8))
    assert exported(module, ["input:float32[batch,8]"])[1].dynamic_dims == ("batch",)


def test_modules_elsewhere_are_sent_back(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"exports are made on the CPU; got meta; module\.cpu\(\)"):
        toolkit.export(nn.Linear(8, 4, device="meta"), [X], tmp_path / "out.onnx")


def test_training_mode_is_left_and_said(exported: Exported) -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)).train()
    _, report = exported(module, ["input:float32[batch,8]"])
    assert "was in training mode; exported in evaluation mode" in report.notes[0]
    assert report.outputs[0].shape == ("batch", 4)


def test_large_models_keep_their_weights_beside_the_graph(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.graph.files.SINGLE_FILE_BYTES", 1000)
    path, report = exported(nn.Linear(64, 64), ["input:float32[batch,64]"])
    beside = path.with_name("out.onnx.data")
    assert beside.stat().st_size >= 64 * 64 * 4 and path.stat().st_size < 2000
    assert report.size_bytes > beside.stat().st_size
    assert sorted(path.parent.iterdir()) == sorted([path, beside])


def test_the_opset_can_be_chosen(exported: Exported) -> None:
    path, report = exported(nn.Linear(4, 4), ["input:float32[batch,4]"], opset=18)
    assert report.opset == facts(path).opset == 18


def test_missing_inputs_ask_for_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the source does not say what it takes; expected --input 'pixel_values:"):
        toolkit.export(nn.Linear(4, 4), None, tmp_path / "out.onnx")


def test_an_output_that_cannot_be_written_is_found_first(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="directory does not exist"):
        toolkit.export(Perceptron(), [X], tmp_path / "nowhere" / "out.onnx")


def test_exporters_are_silent(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    class Loud(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            print("from the module")
            return x + torch.tensor(1.0)

    exported(Loud(), [X])
    assert capfd.readouterr() == ("", "")
