"""Kinds of nodes that cost more time in int8 than they gain go back to float."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from toolkit.graph.files import load_model
from toolkit.profiler.pairing import PairedRatio, Verdict
from toolkit.providers.session import Session
from toolkit.quantizer import auto
from toolkit.quantizer.api import quantize
from toolkit.quantizer.economy import REASON, kinds
from toolkit.quantizer.preparing import prepare
from toolkit.tensors import Array

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,8,8] x) => (float[N,5] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1)
  r = Relu(a)
  d = Conv<pads=[1,1,1,1], group=8>(r, w2)
  e = Conv(d, w3)
  m = GlobalAveragePool(e)
  f = Flatten(m)
  y = Gemm<transB=1>(f, w4)
}"""
WEIGHTS = {"w1": (8, 4, 3, 3), "w2": (8, 1, 3, 3), "w3": (8, 8, 1, 1), "w4": (5, 8)}


@pytest.fixture
def mobile(write: Callable[..., Path]) -> Path:
    return write(MODEL, WEIGHTS)


def images() -> list[dict[str, Array]]:
    return [{"x": np.random.default_rng(0).standard_normal((8, 4, 8, 8)).astype(np.float32)}]


def test_kinds_are_what_engines_have_kernels_for(mobile: Path) -> None:
    model = prepare(load_model(mobile), opset=13, where=mobile).model
    names = [node.name or "" for node in model.graph]
    found = kinds(model, names)
    assert {kind: len(nodes) for kind, nodes in found.items() if "Conv" in kind or kind == "Gemm"} == {
        "first Conv": 1, "grouped Conv": 1, "Conv": 1, "Gemm": 1,
    }  # fmt: skip
    assert kinds(model, []) == {}


def judged(slow: Mapping[str, float]) -> Callable[..., dict[str, PairedRatio]]:
    """A race whose outcome is known: kinds in ``slow`` take that part of the time when they are left in float."""

    def race(_: Session, candidates: Mapping[str, Session], __: object) -> dict[str, PairedRatio]:
        assert len({session.model for session in candidates.values()}) == len(candidates)  # each has a file of its own
        found = {}
        for name in candidates:
            static = 0.4 if "nodes in float" in name else 0.5
            ratio = slow.get(name, 1.0 if name in KINDS else static if name.startswith("static") else 0.9)
            verdict: Verdict = "faster" if ratio < 0.99 else "no significant difference"
            found[name] = PairedRatio(ratio, (ratio, ratio), verdict, 9, 1)
        return found

    return race


KINDS = ("first Conv", "grouped Conv", "Conv", "Gemm", "GlobalAveragePool")


@pytest.mark.parametrize(
    ("slow", "left"),
    [({}, 0), ({"grouped Conv": 0.8}, 1), ({"grouped Conv": 0.8, "Gemm": 0.9}, 2)],
)
def test_kinds_that_do_not_pay_are_left_in_float(
    mobile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: dict[str, float], left: int
) -> None:
    monkeypatch.setattr(auto, "race", judged(slow))
    report = quantize(mobile, tmp_path / "o.onnx", calibration=images())
    assert report.method.startswith("static int8")
    assert sum(item.reason == REASON for item in report.left) == left
    assert report.speed is not None
    assert report.speed.ratio == (0.4 if left else 0.5)
    in_file = onnx.load(report.output).graph
    made = {output: node.op_type for node in in_file.node for output in node.output}
    grouped = next(
        node for node in in_file.node if any(item.name == "group" and item.i == 8 for item in node.attribute)
    )
    assert (made.get(grouped.input[1]) == "DequantizeLinear") == ("grouped Conv" not in slow)
    assert sum(kind == "DequantizeLinear" for kind in made.values()) > 4


def test_a_reader_of_moved_elements_finds_their_range_when_their_maker_is_left_in_float(
    mobile: Path, tmp_path: Path
) -> None:
    model = prepare(load_model(mobile), opset=13, where=mobile).model
    pool = next(node.name or "" for node in model.graph if node.op_type == "GlobalAveragePool")
    report = quantize(mobile, tmp_path / "o.onnx", method="static", calibration=images(), keep_float=(pool,))
    assert report.quantized == {"Conv": 3, "Gemm": 1}
    assert report.outputs[0].snr_db > 20
