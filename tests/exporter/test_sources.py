"""Sources: what a person writes, what comes of it, and what is said when nothing can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from toolkit.errors import InvalidModel, UsageError
from toolkit.exporter.sources import open_module, open_source
from toolkit.exporter.sources.opening import split_arguments

FACTORY = """
import torch
from torch import nn
from beside import WIDTH

INPUTS = ["x:float32[batch,4]"]
OUTPUTS = ["scores"]
TASK = "image-classification"
LABELS = ["cat", "dog"]
LICENSE = "MIT"

def build():
    torch.manual_seed(0)
    return nn.Linear(4, WIDTH)

class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x

ready = nn.ReLU()

def with_inputs():
    return nn.Linear(3, 1), (torch.zeros(5, 3),)

def sized(width, bias=True):
    return nn.Linear(4, width, bias=bias)

def broken():
    raise RuntimeError("no weights here")

def number():
    return 3
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 2\n")
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    return path


def test_a_function_in_a_file_and_what_the_file_says_beside_it(factory: Path) -> None:
    source = open_source(f"{factory}:build")
    assert source.name == "net.py:build"
    assert [str(spec) for spec in source.inputs or ()] == ["x:float32[batch,4]"]
    assert (source.outputs, source.task, source.labels, source.license) == (
        ("scores",),
        "image-classification",
        ("cat", "dog"),
        "MIT",
    )
    assert open_source(f"{factory}:build", task="other").task == "other"


@pytest.mark.parametrize("name", ["Doubled", "ready"])
def test_classes_and_modules_are_factories_too(factory: Path, name: str) -> None:
    assert isinstance(open_source(f"{factory}:{name}").module, nn.Module)


def test_a_factory_gets_what_stands_behind_the_question_mark(factory: Path) -> None:
    source = open_source(f"{factory}:sized?width=6&bias=false")
    assert isinstance(source.module, nn.Linear)
    assert source.module.out_features == 6 and source.module.bias is None
    assert source.name == f"{factory.name}:sized?width=6&bias=false"
    with pytest.raises(InvalidModel, match=r"got TypeError: .*unexpected keyword argument 'wide'"):
        open_source(f"{factory}:sized?wide=6")
    with pytest.raises(UsageError, match="a module takes no arguments; got width; expected a function"):
        open_source(f"{factory}:ready?width=6")


def test_a_question_mark_that_is_no_argument_belongs_to_the_name() -> None:
    assert split_arguments("what?.onnx") == ("what?.onnx", {})
    assert split_arguments("folder?a=1") == ("folder?a=1", {})
    assert split_arguments("zoo:cnn?width=64&name=x") == ("zoo:cnn", {"width": 64, "name": "x"})


def test_a_zoo_model_at_another_width() -> None:
    source = open_source("zoo:fcnn_digits?width=32")
    assert source.name == "zoo:fcnn_digits?width=32"
    assert [item.out_features for item in source.module.modules() if isinstance(item, nn.Linear)] == [32, 16, 10]
    with pytest.raises(UsageError, match="the zoo takes no such argument; got depth=3; expected width=SIZE"):
        open_source("zoo:fcnn_digits?depth=3")


def test_a_factory_may_return_its_inputs(factory: Path) -> None:
    assert [str(spec) for spec in open_source(f"{factory}:with_inputs").inputs or ()] == ["input:float32[batch,3]"]


def test_a_package_module_is_a_source() -> None:
    assert isinstance(open_source("torch.nn:ReLU").module, nn.ReLU)


def test_one_file_can_describe_several_factories(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(
        "from torch import nn\nINPUTS = {'a': ['x:float32[batch,2]'], 'b': ['x:float32[batch,3]']}\n"
        "def a(): return nn.Linear(2, 1)\ndef b(): return nn.Linear(3, 1)\n"
    )
    assert [open_source(f"{path}:{name}").inputs[0].shape for name in "ab"] == [("batch", 2), ("batch", 3)]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{}:biuld", UsageError, r"no such factory; got 'biuld'; expected 'build' \(did you mean that\?\)"),
        ("{}:broken", InvalidModel, r"the code raised an exception; got RuntimeError: no weights here"),
        ("{}:number", UsageError, r"the factory returned something else; got int"),
        ("{}:LICENSE", UsageError, r"this is no factory; got str"),
        ("{}", UsageError, r"cannot tell what kind of source this is.*FACTORY names a function"),
        ("nowhere.at.all:build", UsageError, r"no such Python module"),
        ("zoo:resnet5", UsageError, r"the zoo has no such model; got 'resnet5'; expected 'resnet50'"),
        ("nothing", UsageError, r"cannot tell what kind of source this is"),
        ("missing.py:build", UsageError, r"no such factory file"),
        ("missing.onnx", UsageError, r"no such model file"),
        ("missing.pt2", UsageError, r"no such exported program"),
    ],
)
def test_what_is_wrong_with_a_source_is_one_line(factory: Path, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        open_source(text.format(factory))
    assert "\n" not in str(caught.value)


def test_a_file_with_a_mistake_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import torch\n\n1 / 0\n")
    with pytest.raises(InvalidModel, match=r"\(bad\.py, line 3\): the code raised an exception; got ZeroDivisionError"):
        open_source(f"{tmp_path / 'bad.py'}:build")
    (tmp_path / "worse.py").write_text("def build(:\n")
    with pytest.raises(InvalidModel, match=r"line 1: the code raised an exception; got SyntaxError"):
        open_source(f"{tmp_path / 'worse.py'}:build")


def test_weights_that_a_factory_draws_are_the_same_every_time(tmp_path: Path) -> None:
    path = tmp_path / "drawn.py"
    path.write_text(
        "import random\nimport numpy as np\nfrom torch import nn\nready = nn.Linear(3, 2)\n"
        "def drawn():\n    layer = nn.Linear(3, 2)\n"
        "    nn.init.constant_(layer.bias, random.random() + float(np.random.rand()))\n    return layer\n"
    )
    before = torch.get_rng_state()
    for name in ("ready", "drawn"):
        first, second = (open_source(f"{path}:{name}").module.state_dict() for _ in range(2))
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(before, torch.get_rng_state())


def test_the_zoo_says_everything_itself() -> None:
    source = open_source("zoo:cnn_digits")
    assert source.inputs is not None and source.preprocessing is not None
    assert source.labels == tuple("0123456789") and source.license and source.outputs == ("logits",)


def test_programs_want_to_be_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    program = torch.export.export(
        nn.Linear(4, 2), (torch.zeros(3, 4),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
    )
    torch.export.save(program, path)
    with pytest.raises(UsageError, match=r"a \.pt2 file is code, and loading one runs it; add --trust"):
        open_source(str(path))
    source = open_source(str(path), trust=True)
    assert [str(spec) for spec in source.inputs or ()] == ["input:float32[batch,4]"]
    assert source.module(torch.ones(1, 4)).shape == (1, 2)
    path.write_bytes(b"PK not really")
    with pytest.raises(InvalidModel, match="not an ExportedProgram"):
        open_source(str(path), trust=True)


def test_open_module_gives_a_flat_module_with_specs(factory: Path) -> None:
    module, inputs, outputs = open_module(f"{factory}:build")
    assert [spec.name for spec in inputs] == ["x"] and [spec.name for spec in outputs] == ["scores"]
    assert module(torch.zeros(7, 4))[0].shape == (7, 2)
    with pytest.raises(UsageError, match="does not say what it takes"):
        open_module("torch.nn:ReLU")
