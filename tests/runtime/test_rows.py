"""Rows are independent only where that was tried: with neighbours of all kinds, in batches of several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import toolkit
from tests.conformance.models import LINEAR, write_compressed, write_quantized
from toolkit.providers.session import Session
from toolkit.runtime.rows import REORDERED, Rows, prove_rows
from toolkit.tensors import TensorSpec

PROVIDERS = ["cpu", "openvino"]
HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"cpu": "onnxruntime"}.get(request.param, request.param))
    return str(request.param)


def proven(path: Path, provider: str = "cpu") -> Rows:
    with toolkit.load(path, provider) as session:
        return prove_rows(session)


def written(folder: Path, graph: str) -> Path:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(HEADER + graph), path)
    return path


def test_a_linear_layers_rows_are_independent(tmp_path: Path, provider: str) -> None:
    found = proven(LINEAR.write(tmp_path), provider)
    assert (found.independent, found.inputs, found.outputs) == (True, {"x": 0}, {"y": 0})
    assert found.worst_ulp <= REORDERED


def test_static_and_weight_only_int8_are_independent(tmp_path: Path, provider: str) -> None:
    assert proven(write_quantized(tmp_path), provider).independent
    assert proven(write_compressed(tmp_path)[0], provider).independent


def test_dynamic_int8_is_refused(tmp_path: Path, provider: str) -> None:
    """Its scale is that of the largest value in the whole batch."""
    path = written(
        tmp_path,
        f"""g (float[batch,4] x) => (float[batch,3] y)
        <int8[4,3] W = {{1, -2, 5, 0, 3, 1, 2, 0, -1, -5, 1, 4}}, float s = {{0.1}}> {{
            q, scale, zero = DynamicQuantizeLinear(x)
            product = MatMulInteger(q, W, zero)
            real = Cast<to = {onnx.TensorProto.FLOAT}>(product)
            factor = Mul(scale, s)
            y = Mul(real, factor)
        }}""",
    )
    found = proven(path, provider)
    assert not found.independent
    assert "changes with neighbours a thousand times larger" in found.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("m = ReduceMean<axes = [0], keepdims = 1>(x) y = Sub(x, m)", "changes with neighbours"),
        ("y = Softmax<axis = 0>(x)", "changes with neighbours"),
        ("y = CumSum(x, zero)", "changes with neighbours"),
        ("s = Shape(x) n = Slice(s, zero1, one1) f = Cast<to = 1>(n) y = Div(x, f)", "not that of the row alone"),
    ],
    ids=["mean over the batch", "softmax over the batch", "running sum", "divided by the batch's size"],
)
def test_what_looks_at_other_rows_is_refused(tmp_path: Path, body: str, reason: str) -> None:
    path = written(
        tmp_path,
        "g (float[batch,4] x) => (float[batch,4] y)"
        f" <int64 zero = {{0}}, int64[1] zero1 = {{0}}, int64[1] one1 = {{1}}> {{ {body} }}",
    )
    found = proven(path)
    assert not found.independent
    assert reason in found.reason


def test_nan_that_spreads_is_refused(tmp_path: Path) -> None:
    """Zero times the other rows is nothing, until one of them is NaN."""
    body = "s = ReduceSum<keepdims = 1>(x, axes) n = Mul(s, nought) y = Add(x, n)"
    path = written(
        tmp_path,
        f"g (float[batch,4] x) => (float[batch,4] y) <int64[1] axes = {{0}}, float nought = {{0}}> {{ {body} }}",
    )
    found = proven(path)
    assert not found.independent
    assert found.reason == "in a batch of 2, output 'y' of a row changes with neighbours that are NaN"


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }", "its batch size is fixed"),
        ("g (float[batch,4] x) => (float[4] y) { y = ReduceSum<keepdims = 0>(x, a) }", "one axis that counts rows"),
        ("g (float[batch,4] x) => (float[m,4] y) { y = Concat<axis = 0>(x, x) }", "one axis that counts rows"),
        ("g (float[batch,4] x) => (float[batch,batch] y) { t = Transpose(x) y = MatMul(x, t) }", "rows: [1, 1] for 1"),
        ("g (float[batch,4] x) => (int64[2,n] y) { y = NonZero(x) }", "output 'y'"),
    ],
    ids=["fixed batch", "no batch in the output", "twice the batch", "batch by batch", "as many as there are"],
)
def test_shapes_that_do_not_count_rows_are_refused(tmp_path: Path, graph: str, reason: str) -> None:
    path = written(tmp_path, graph.replace(") {", ") <int64[1] a = {0}> {", 1) if "(x, a)" in graph else graph)
    found = proven(path)
    assert not found.independent
    assert reason in found.reason


def test_axes_are_found_where_they_are(tmp_path: Path) -> None:
    """State of a recurrent layer counts rows in its second axis; a factor is shared by all rows."""
    path = written(
        tmp_path,
        "g (float[batch,4] x, float[2,batch,4] state, float factor) => (float[batch,4] y, float[2,b,4] next)"
        " { y = Mul(x, factor) next = Add(state, state) }",
    )
    found = proven(path)
    assert (found.inputs, found.outputs) == ({"x": 0, "state": 1}, {"y": 0, "next": 1})


def test_a_model_that_takes_few_sizes_is_tried_at_those(tmp_path: Path) -> None:
    """A product that takes rows of 8 only, which nothing but trying tells."""
    graph = "g (float[batch,wide] x) => (float[batch,2] y) <float[8,2] W = {%s}> { y = MatMul(x, W) }"
    path = written(tmp_path, graph % ", ".join(["1", "2"] * 8))
    with toolkit.load(path, "cpu") as session:
        assert prove_rows(session, {"wide": 8}).independent
        assert "did not run" in prove_rows(session).reason  # 8 is none of the sizes tried


def test_ids_stay_in_their_range(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "g (int64[batch,len] ids) => (float[batch,len,2] y) <float[5,2] E = {1,2,3,4,5,6,7,8,9,10}>"
        " { y = Gather(E, ids) }",
    )
    with toolkit.load(path, "cpu") as session:
        session.inputs = (TensorSpec("ids", "int64", ("batch", "len"), (0, 4)),)
        assert prove_rows(session).independent
        session.inputs = (TensorSpec("ids", "int64", ("batch", "len"), (0, 5)),)
        assert "did not run" in prove_rows(session).reason


def test_the_tolerance_lets_another_order_of_additions_pass_and_no_more() -> None:
    class Reordering:
        """Adds the same numbers in another order where the batch is larger."""

        inputs = (TensorSpec("x", "float32", ("batch", 512)),)
        outputs = (TensorSpec("y", "float32", ("batch",)),)
        error = 0.0

        def run(self, feeds):  # type: ignore[no-untyped-def]
            x = feeds["x"]
            step = 1 if len(x) == 1 else -1
            with np.errstate(invalid="ignore", over="ignore"):
                y = np.cumsum(x[:, ::step], axis=1, dtype=np.float32)[:, -1]
                return {"y": y * np.float32(1 if len(x) == 1 else 1 + self.error)}

        def prove(self, feeds):  # type: ignore[no-untyped-def]
            raise NotImplementedError

        def close(self) -> None:
            pass

    engine = Reordering()
    session = Session(engine, "null", None, "reordering")  # type: ignore[arg-type]
    found = prove_rows(session)
    assert found.independent
    assert 0 < found.worst_ulp <= REORDERED
    engine.error = 1e-3
    assert "of which another order of additions explains 64" in prove_rows(session).reason
