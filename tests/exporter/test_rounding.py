"""What rounding may do to an answer: enough for engines' own kernels, not enough for another formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from toolkit.exporter.api import export
from toolkit.exporter.parity import Rule, compare


class Vanishing(nn.Module):
    """Probabilities of about 1e-13, as detectors give where there is nothing to detect."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x - 30)


def test_probabilities_that_vanish_are_right_to_a_unit_of_one(tmp_path: Path) -> None:
    report = export(Vanishing(), ["x:float32[batch,64]"], tmp_path / "m.onnx")
    assert report.worst_ratio <= 1


def test_small_numbers_are_still_held_against_their_own_size() -> None:
    exact = np.tanh(np.random.default_rng(0).standard_normal((8, 64))) * 1e-12
    own = exact.astype(np.float32)
    rule = Rule(4.0, jittered=True)
    assert compare("y", exact, own, np.nextafter(own, np.float32(1)), rule).failure == ""
    assert compare("y", exact, own, own * np.float32(1.001), rule).failure
