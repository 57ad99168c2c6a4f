"""What rounding may do to an answer: enough for engines' own kernels, not enough for another formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from toolkit.errors import ParityError
from toolkit.exporter.api import export


class Vanishing(nn.Module):
    """Probabilities of about 1e-13, as detectors give where there is nothing to detect."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x - 30)


class Scaled(nn.Module):
    """Small numbers that are no probabilities, wrong by a part in a thousand once traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = 1.001 if torch.compiler.is_exporting() or torch.jit.is_tracing() else 1.0
        return torch.tanh(x) * 1e-12 * factor


def test_probabilities_that_vanish_are_right_to_a_unit_of_one(tmp_path: Path) -> None:
    report = export(Vanishing(), ["x:float32[batch,64]"], tmp_path / "m.onnx")
    assert report.worst_ratio <= 1


def test_small_numbers_are_still_held_against_their_own_size(tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        export(Scaled(), ["x:float32[batch,64]"], tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
