"""Embeddings in int8: sizes, numbers, and what the engines keep in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model
from toolkit.providers import registry
from toolkit.providers.placement import placement_rules
from toolkit.quantizer.api import quantize
from toolkit.quantizer.lowering import onnxruntime_, weights
from toolkit.quantizer.lowering.lowered import Lowered
from toolkit.quantizer.lowering.tables import SMALLEST_TABLE, in_rows
from toolkit.quantizer.preparing import prepare
from toolkit.tensors import Array
from toolkit.verifier.metrics import compare_arrays

Write = Callable[..., Path]
CPU, OPENVINO = placement_rules("cpu.toml").weight_only, placement_rules("openvino.toml").weight_only
assert CPU is not None and OPENVINO is not None
ROWS, COLUMNS = 2000, 64
HEAD = '<ir_version: 8, opset_import: ["" : 17]> '
TABLE = HEAD + f"g (int64[N,T] ids) => (float[N,T,{COLUMNS}] y) {{ y = Gather(table, ids) }}"
TIED = (
    HEAD
    + f"""g (int64[N,T] ids) => (float[N,T,{ROWS}] y) {{
  h = Gather(table, ids)
  head = Transpose<perm=[1,0]>(table)
  y = MatMul(h, head)
}}"""
)
FORMS = ("MatMulNBits", "qdq")


def table() -> Array:
    """Rows of very different size, as those of rare and of usual words are."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((ROWS, COLUMNS)) * generator.uniform(0.01, 3, (ROWS, 1))
    values[7] = 0
    return values.astype(np.float32)


def lowered(path: Path, form: str, bits: int = 8) -> tuple[Lowered, Path]:
    model = prepare(load_model(path), opset=weights.OPSETS[bits], where=path).model
    result = (
        weights.lower_weights(model, OPENVINO, bits) if form == "qdq" else onnxruntime_.lower_to_nbits(model, CPU, bits)
    )
    output = path.with_name(f"{form}{bits}.onnx")
    save_model(result.model, output)
    onnx.checker.check_model(output)
    return result, output


def ids(*shape: int) -> dict[str, Array]:
    return {"ids": np.random.default_rng(1).integers(0, ROWS, shape)}


def snr(source: Path, output: Path, engine: str, feeds: dict[str, Array]) -> float:
    wanted, got = (registry.provider(engine).open(path)(feeds) for path in (source, output))
    return min(compare_arrays(wanted[name], got[name]).snr_db for name in wanted)


def stored(path: Path) -> dict[str, int]:
    """Elements per type among the initializers of a file."""
    found: dict[str, int] = {}
    for item in onnx.load(path).graph.initializer:
        name = onnx.TensorProto.DataType.Name(item.data_type)
        found[name] = found.get(name, 0) + int(np.prod(item.dims))
    return found


@pytest.mark.parametrize("engine", ["cpu", "openvino"])
@pytest.mark.parametrize("form", FORMS)
def test_a_table_takes_a_quarter_and_the_numbers_hold(form: str, engine: str, write: Write) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    source = write(TABLE, {"table": table()})
    result, output = lowered(source, form)
    assert (result.quantized, result.left) == ({"Gather": 1}, ())
    assert output.stat().st_size < 0.28 * source.stat().st_size
    assert (facts(output).quantized, facts(output).precision) == (True, "int8")
    for shape in ((1, 1), (3, 17)):
        assert snr(source, output, engine, ids(*shape)) > 40
    zeros = {"ids": np.full((1, 2), 7)}
    assert not registry.provider(engine).open(output)(zeros)["y"].any()


def test_negative_indices_and_single_ones_keep_their_meaning(write: Write) -> None:
    text = HEAD + f"g (int64 i, int64[N] ids) => (float[{COLUMNS}] y, float[N,{COLUMNS}] z) {{"
    source = write(text + " y = Gather(table, i)\n z = Gather<axis=0>(table, ids) }", {"table": table()})
    result, output = lowered(source, "qdq")
    assert result.quantized == {"Gather": 2}
    assert stored(output)["INT8"] == ROWS * COLUMNS  # one table for both
    feeds = {"i": np.array(-3), "ids": np.array([-1, 0, -ROWS])}
    assert snr(source, output, "cpu", feeds) > 40


@pytest.mark.parametrize("form", FORMS)
def test_onnxruntime_does_not_make_floats_of_the_table(form: str, write: Write, tmp_path: Path) -> None:
    import onnxruntime

    _, output = lowered(write(TABLE, {"table": table()}), form)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(output, options, providers=["CPUExecutionProvider"])
    assert stored(tmp_path / "optimized.onnx") == {"INT8": ROWS * COLUMNS, "FLOAT": ROWS + 1}
    assert onnx.load(tmp_path / "optimized.onnx").graph.node[0].op_type == "Gather"


def test_openvino_does_not_make_floats_of_the_table(write: Write) -> None:
    openvino = pytest.importorskip("openvino")
    _, output = lowered(write(TABLE, {"table": table()}), "qdq")
    compiled = openvino.Core().compile_model(output, "CPU")
    kept = [
        str(node.get_output_element_type(0))
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_output_size() and list(node.get_output_partial_shape(0).to_shape() if
            node.get_output_partial_shape(0).is_static else []) == [ROWS, COLUMNS]
    ]  # fmt: skip
    assert kept == ["<Type: 'int8_t'>"]


@pytest.mark.parametrize(("form", "engine"), [("MatMulNBits", "cpu"), ("qdq", "cpu"), ("qdq", "openvino")])
def test_a_tied_head_reads_the_tables_integers(form: str, engine: str, write: Write) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    source = write(TIED, {"table": table()})
    result, output = lowered(source, form)
    assert result.quantized == {"MatMul": 1, "Gather": 1}
    narrow = stored(output)
    assert narrow.get("INT8", 0) + narrow.get("UINT8", 0) < 1.01 * ROWS * COLUMNS
    assert output.stat().st_size < 0.3 * source.stat().st_size
    assert snr(source, output, engine, ids(2, 9)) > 33


@pytest.mark.parametrize("form", FORMS)
def test_four_bits_of_a_tied_head_stand_beside_the_eight_of_the_table(form: str, write: Write) -> None:
    source = write(TIED, {"table": table()})
    result, output = lowered(source, form, bits=4)
    assert result.quantized == {"MatMul": 1, "Gather": 1}
    assert output.stat().st_size < 0.46 * source.stat().st_size
    assert snr(source, output, "cpu", ids(2, 9)) > 15


@pytest.mark.parametrize(
    ("text", "values", "reason"),
    [
        (TABLE, {"table": np.where(np.arange(COLUMNS) == 3, np.nan, table()).astype(np.float32)}, "a NaN"),
        (
            TABLE.replace("y)", f"y, float[{ROWS},{COLUMNS}] e)").replace("y = G", "e = Add(table, table)\n y = G"),
            {"table": table()},
            "elsewhere",
        ),
    ],
)
def test_tables_that_stay_float_have_a_reason(text: str, values: dict[str, Array], reason: str, write: Write) -> None:
    result, _ = lowered(write(text, values), "qdq")
    assert result.quantized == {}
    assert [(item.operator, reason in item.reason) for item in result.left] == [("Gather", True)]


@pytest.mark.parametrize("rows", [SMALLEST_TABLE // COLUMNS - 1, SMALLEST_TABLE // COLUMNS])
def test_small_tables_are_not_worth_it(rows: int, write: Write) -> None:
    result, _ = lowered(write(TABLE, {"table": table()[:rows]}), "qdq")
    assert result.quantized == ({"Gather": 1} if rows * COLUMNS >= SMALLEST_TABLE else {})


def test_rows_of_zeros_and_the_largest_error() -> None:
    stored_rows, steps = in_rows(table())
    assert steps[7] == 1 and not stored_rows[7].any()
    assert (np.abs(stored_rows * steps - table()) <= steps / 2 * 1.0001).all()


def test_the_command_reports_gathers_and_refuses_the_file_again(write: Write, tmp_path: Path) -> None:
    source = write(TABLE, {"table": table()})
    report = quantize(source, tmp_path / "out.onnx", method="weight-only")
    assert (report.quantized, report.precision) == ({"Gather": 1}, "int8")
    with pytest.raises(Exception, match="quantized already; got int8"):
        quantize(tmp_path / "out.onnx", tmp_path / "again.onnx", method="weight-only")


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_static_int8_narrows_the_tables_of_a_model_as_well(
    write: Callable[..., Path], tmp_path: Path, target: str
) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\n' + (
        "g (int64[N,T] ids) => (float[N,T,8] y) { e = Gather(table, ids)\n p = MatMul(e, w)\n y = Add(p, b) }"
    )
    source = write(text, {"table": (1024, 64), "w": (64, 8), "b": (8,)})
    samples = [{"ids": np.random.default_rng(0).integers(0, 1024, (4, 6))}]
    report = quantize(source, tmp_path / "o.onnx", method="static", calibration=samples, target=target)
    assert report.quantized == {"MatMul": 1, "Gather": 1}
    assert report.size_bytes_after < 0.3 * report.size_bytes_before
    assert report.outputs[0].snr_db > 30
