"""Outputs that mix large and small things: the error of the large ones must not hide that the small ones are gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolkit.quantizer.api import quantize
from toolkit.quantizer.fidelity import small_part

# A backbone, then a head of 4 boxes in pixels and 12 scores below one, as one convolution gives them.
HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,16,8,8] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, w2, b2)
  s = Relu(c)
  y = Conv(s, w3, b3)
}"""


@pytest.fixture
def detector(write: Callable[..., Path]) -> Path:
    generator = np.random.default_rng(0)
    sizes = np.array([300.0] * 4 + [0.05] * 12, np.float32)
    head = generator.standard_normal((16, 8, 1, 1)).astype(np.float32) * sizes[:, None, None, None]
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,)}
    return write(HEAD, {**shapes, "w3": head, "b3": np.zeros(16, np.float32)})


def images() -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(1).standard_normal((16, 3, 8, 8)).astype(np.float32)}]


@pytest.mark.parametrize(("target", "narrowed"), [("cpu", 2), ("openvino", 3)])
def test_a_head_of_boxes_and_scores_is_not_rounded_and_the_scores_are_judged(
    detector: Path, tmp_path: Path, target: str, narrowed: int
) -> None:
    """OpenVINO's int8 convolutions give float, so there the head's products may be int8; on cpu it stays float."""
    report = quantize(detector, tmp_path / "o.onnx", method="static", calibration=images(), target=target)
    reasons = [item.reason for item in report.left if "differ too much in size" in item.reason]
    assert len(reasons) == 3 - narrowed
    assert report.quantized == {"Conv": narrowed}
    parts = {item.name: item.snr_db for item in report.outputs}
    assert set(parts) == {"y", "y (12 of 16 slices, below 1/32 of the others)"}
    assert min(parts.values()) > 20


def test_scores_that_are_gone_are_seen_even_where_boxes_are_fine() -> None:
    from toolkit.quantizer.fidelity import _compare, refusal  # what the record cannot foresee

    generator = np.random.default_rng(0)
    wanted = np.concatenate([generator.random((1, 50, 4)) * 600, generator.random((1, 50, 8))], -1).astype(np.float32)
    step = np.float32(600 / 255)
    found = _compare([({"y": wanted}, {"y": np.round(wanted / step) * step})])
    assert found[0].snr_db > 40
    assert "8 of 12 slices" in refusal(found, "int8")


def test_alike_sizes_have_no_small_part() -> None:
    generator = np.random.default_rng(0)
    assert small_part([generator.standard_normal((2, 5, 8))]) is None
    assert small_part([np.zeros((2, 5, 8))]) is None
    assert small_part([np.array([[1.0, 1e-6]])]) is None  # class scores vary, and the largest is what counts
