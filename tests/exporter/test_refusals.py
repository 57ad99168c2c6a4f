"""Modules whose graph would compute something else: exit code 3, one line, no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.errors import ParityError, UsageError
from toolkit.exporter.api import export

X = "x:float32[batch,4]"


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("memory", torch.zeros(4))
        self.calls = 0


class BranchOnValue(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else self.linear(x)


class RareBranchOnValue(Base):
    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 1e6:
            x = x / x.abs().max()
        return self.linear(x)


class RareBranchOnItem(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.max().item() > 1e6 else self.linear(x)


class RareBranchHiddenFromExporters(Base):
    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and not torch.jit.is_tracing() and x.max().item() > 1e6:
            return x
        return self.linear(x)


class RareBranchOnLength(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[0] > 500 else self.linear(x)


class BranchOnOneSample(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[0] == 1 else self.linear(x)


class RareBranchOnOneLength(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[0] == 27 else self.linear(x)


class FrozenLength(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * int(x.shape[0])


class FrozenLoop(Base):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(4)
        for row in range(x.shape[0]):
            total = torch.tanh(total + self.linear(x[row]))
        return total


class FrozenLengthWithWarningsOff(Base):
    def forward(self, x: Tensor) -> Tensor:
        import warnings

        warnings.filterwarnings("ignore")
        return self.linear(x) / float(x.shape[0])


class Dropout(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), 0.1, training=True)


class RandomNoise(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + 1e-7 * torch.randn(4)


class StateInABuffer(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.memory += x.mean(0)
        return self.linear(x) + self.memory


class StateInAnAttribute(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)


class CacheBySize(Base):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] not in self.cache:
            self.cache[x.shape[0]] = torch.arange(x.shape[0])[:, None] * 1.0
        return self.linear(x) + self.cache[x.shape[0]]


class RareSelectionHiddenFromExporters(Base):
    def forward(self, x: Tensor) -> Tensor:
        if type(x) is Tensor and x[x > 1e6].numel() > 0:
            return x
        return self.linear(x)


class RareLengthHiddenFromExporters(Base):
    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and not torch.jit.is_tracing() and x.shape[0] > 300:
            return x
        return self.linear(x)


MODULES = (
    BranchOnValue, RareBranchOnValue, RareBranchOnItem, RareBranchHiddenFromExporters, RareBranchOnLength,
    BranchOnOneSample, RareBranchOnOneLength, FrozenLength, FrozenLoop, FrozenLengthWithWarningsOff, Dropout,
    RandomNoise, StateInABuffer, StateInAnAttribute, RareSelectionHiddenFromExporters, RareLengthHiddenFromExporters,
    CacheBySize,
)  # fmt: skip


@pytest.mark.parametrize("cls", MODULES, ids=[cls.__name__ for cls in MODULES])
def test_refused_with_one_line_and_no_file(cls: Callable[[], nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        export(cls(), [X], tmp_path / "out.onnx")
    line = str(caught.value)
    assert "\n" not in line and len(line) < 620
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


class Answering(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (None, r"^Answering\.forward: the module returns no tensor; got None; expected a tensor, or .*"),
        ({}, r"^Answering\.forward: the module returns no tensor; got a dict without one; .*"),
        ((None,), r"^Answering\.forward: the module returns no tensor; got a tuple without one; .*"),
        ("text", r"^output: the module returns something else than tensors; got str; expected a tensor, or .*"),
        ({"n": 3}, r"^output n: the module returns something else than tensors; got int; .*"),
    ],
)
def test_answers_that_are_no_tensors_are_said_to_be_that(answer: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=line):
        export(Answering(answer), [X], tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_line_says_what_each_strategy_ran_into(tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        export(FrozenLength(), [X], tmp_path / "out.onnx")
    assert "dynamo: the module's code fixes dim 'batch' to 2" in str(caught.value)
    assert "torchscript: the tracer froze a Python value: int() at test_refusals.py" in str(caught.value)


def test_the_line_says_at_which_size_it_differs(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"differs at beyond batch <= 500 \(batch=50\d\)"):
        export(RareBranchOnLength(), [X], tmp_path / "out.onnx")


def test_code_that_asks_whether_it_is_exported_is_told_no(tmp_path: Path) -> None:
    class Asking(Base):
        def forward(self, x: Tensor) -> Tensor:
            asked = torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
            return self.linear(x) * (2.0 if asked else 1.0)

    assert export(Asking(), [X], tmp_path / "out.onnx").strategy == "dynamo"


def test_a_graph_of_something_else_loses_to_a_later_strategy(tmp_path: Path) -> None:
    class OtherwiseForDynamo(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * (1.0 if type(x) is Tensor else 1.01)

    report = export(OtherwiseForDynamo(), [X], tmp_path / "out.onnx")
    assert report.strategy == "torchscript"
    assert report.attempts[0].strategy == "dynamo" and "differs at traced" in report.attempts[0].reason


def test_an_output_that_was_there_before_stays(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    output.write_text("kept")
    with pytest.raises(ParityError):
        export(Dropout(), [X], output)
    assert output.read_text() == "kept"
