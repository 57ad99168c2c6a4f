"""Exports of small modules, shared by the tests of a session: each costs a second or more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from toolkit.exporter.api import export
from toolkit.exporter.report import ExportReport


class Perceptron(nn.Module):
    """Two layers with a dict as output; ``x (N, 8)`` to ``logits (N, 4)``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.second(torch.relu(self.first(x)))}


X = "x:float32[batch,8]"


@pytest.fixture(scope="session")
def perceptron(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    path = tmp_path_factory.mktemp("perceptron") / "model.onnx"
    return path, export(Perceptron(), [X], path)


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., tuple[Path, ExportReport]]:
    """``exported(module, inputs)``: the file and the report."""

    def run(module: Any, inputs: Any = None, **options: Any) -> tuple[Path, ExportReport]:
        path = tmp_path / "out.onnx"
        return path, export(module, inputs, path, **options)

    return run
