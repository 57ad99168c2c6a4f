"""State pairs kept by the session: each stream is a sequence of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import toolkit
from toolkit.errors import InvalidInput, UsageError

SUM = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x, float[N,2] total) => (float[N,2] y, float[N,2] totalN) {
  totalN = Add(x, total)
  y = Neg(totalN)
}"""
PAIRS = {"total": "totalN"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "sum.onnx"
    onnx.save(onnx.parser.parse_model(SUM), path)
    return path


def ones(count: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.ones((count, 2), np.float32)}


def test_state_goes_from_step_to_step_and_streams_do_not_mix(path: Path) -> None:
    with toolkit.load(path, "cpu") as session:
        one, two = session.stream(PAIRS), session.stream(PAIRS)
        assert one.state == {}
        assert [float(one(ones())["y"][0, 0]) for _ in range(3)] == [-1, -2, -3]
        assert float(two(ones())["y"][0, 0]) == -1
        assert one.state["total"].tolist() == [[3, 3]]
        one.reset()
        assert float(one(ones(4))["y"][3, 1]) == -1


def test_a_sequence_may_start_from_values(path: Path) -> None:
    with toolkit.load(path, "cpu") as session:
        stream = session.stream(PAIRS, {"total": np.full((1, 2), 10, np.float32)})
        assert float(stream(ones())["y"][0, 0]) == -11
        stream.reset({"total": np.full((1, 2), 20, np.float32)})
        assert float(stream(ones())["y"][0, 0]) == -21


def test_a_step_that_fails_leaves_the_state(path: Path) -> None:
    with toolkit.load(path, "cpu") as session:
        stream = session.stream(PAIRS)
        stream(ones())
        with pytest.raises(InvalidInput):
            stream({"x": np.ones((1, 3), np.float32)})
        assert float(stream(ones())["y"][0, 0]) == -2


def test_reused_outputs_do_not_overwrite_the_state_that_is_read(path: Path) -> None:
    with toolkit.load(path, "cpu", reuse_outputs=True) as session:
        stream = session.stream(PAIRS)
        assert [float(stream(ones())["y"][0, 0]) for _ in range(4)] == [-1, -2, -3, -4]
        assert not np.shares_memory(stream.state["total"], stream(ones())["totalN"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({}, "no state pairs are recorded"),
        ({"totl": "totalN"}, r"names an input that the model does not have.*'total' \(did you mean that\?\)"),
        ({"total": "z"}, "names an output that the model does not have"),
    ],
)
def test_pairs_that_make_no_sense_are_one_line(pairs: dict[str, str], message: str, path: Path) -> None:
    with toolkit.load(path, "cpu") as session, pytest.raises(UsageError, match=message):
        session.stream(pairs)


def test_a_first_value_of_something_else_is_refused(path: Path) -> None:
    with toolkit.load(path, "cpu") as session, pytest.raises(UsageError, match="not a state of this stream"):
        session.stream(PAIRS, {"x": np.ones((1, 2), np.float32)})
