"""ONNX Runtime's fused operators are written where the arithmetic is proven to be theirs, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from toolkit.graph.cost import cost
from toolkit.graph.equal_sizes import EqualSizes
from toolkit.providers import registry
from toolkit.quantizer.api import quantize
from toolkit.quantizer.lowering.fused import fuse
from toolkit.tensors import Array

Write = Callable[..., Path]
HEADER = '<ir_version: 8, opset_import: ["" : {opset}]>\n'
PRODUCT = "g (float{dims} x) => (float{out} y) {{ p = MatMul(x, w)\n y = Add(b, p) }}"
RANKS = {
    "matrix": ("[N,8]", "[N,6]", (5, 8)),
    "one dynamic dim": ("[N,3,8]", "[N,3,6]", (5, 3, 8)),
    "two dynamic dims": ("[N,T,8]", "[N,T,6]", (5, 4, 8)),
    "four dims": ("[N,2,T,8]", "[N,2,T,6]", (5, 2, 4, 8)),
}


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def answers(path: Path, feeds: dict[str, Array]) -> Array:
    with registry.provider("cpu").open(path) as session:
        return session(feeds)["y"]


# products


def lowered(source: Path, output: Path, sample: Array, **options: object) -> list[str]:
    options = {"target": "cpu", "placement": "fused", **options}
    report = quantize(source, output, method="static", calibration=[{"x": sample}], **options)  # type: ignore[arg-type]  # few names
    return kinds(report.output)


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("kind", RANKS)
def test_the_bias_is_taken_in_and_the_numbers_stay(write: Write, tmp_path: Path, kind: str, opset: int) -> None:
    dims, out, shape = RANKS[kind]
    source = write(HEADER.format(opset=opset) + PRODUCT.format(dims=dims, out=out), {"w": (8, 6), "b": (6,)})
    sample = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = lowered(source, tmp_path / "o.onnx", sample)
    assert (found.count("MatMulIntegerToFloat"), found.count("MatMul"), found.count("Add")) == (1, 0, 0)
    before, after = (answers(path, {"x": sample}) for path in (source, tmp_path / "o.onnx"))
    assert before.shape == after.shape
    assert np.abs(before - after).max() < 0.05


def test_products_that_read_one_tensor_share_its_integers(write: Write, tmp_path: Path) -> None:
    text = "g (float[N,T,8] x) => (float[N,T,6] y, float[N,T,4] z) {\n" + (
        "p = MatMul(x, w)\n y = Add(b, p)\n q = MatMul(x, v)\n z = Add(q, c) }"
    )
    source = write(HEADER.format(opset=17) + text, {"w": (8, 6), "b": (6,), "v": (8, 4), "c": (4,)})
    found = lowered(source, tmp_path / "o.onnx", np.ones((2, 3, 8), np.float32))
    assert (found.count("QuantizeLinear"), found.count("MatMulIntegerToFloat")) == (1, 2)


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("p = MatMul(x, w)\n y = Add(p, x)", {"w": (8, 8)}, "what is added is no constant"),
        ("p = MatMul(x, w)\n y = Add(p, b)", {"w": (8, 8), "b": (3, 8)}, "it differs from row to row"),
        ("p = MatMul(x, w)\n r = Add(p, b)\n y = Mul(r, p)", {"w": (8, 8), "b": (8,)}, "the product has two readers"),
    ],
)
def test_other_sums_stay(
    write: Write, tmp_path: Path, text: str, weights: dict[str, tuple[int, ...]], reason: str
) -> None:
    source = write(HEADER.format(opset=17) + f"g (float[N,3,8] x) => (float[N,3,8] y) {{ {text} }}", weights)
    found = lowered(source, tmp_path / "o.onnx", np.random.default_rng(0).random((4, 3, 8)).astype(np.float32))
    assert (found.count("MatMulIntegerToFloat"), found.count("MatMul")) == (0, 1), reason


def test_files_for_every_engine_have_standard_operators_alone(write: Write, tmp_path: Path) -> None:
    source = write(HEADER.format(opset=17) + PRODUCT.format(dims="[N,8]", out="[N,6]"), {"w": (8, 6), "b": (6,)})
    found = lowered(source, tmp_path / "o.onnx", np.ones((4, 8), np.float32), placement="")
    assert {"MatMul", "Add"} <= set(found)


# attention

ATTENTION = """g (float[N,S,8] q, float[N,T,8] k, float[N,T,8] v{inputs}) => (float[N,S,8] y) {{
    split = Constant<value_ints = [0, 0, 2, 4]>()
    join = Constant<value_ints = [0, 0, 8]>()
    qs = Reshape(q, split)
    ks = Reshape(k, split)
    vs = Reshape(v, split)
    qt = Transpose<perm = [0, 2, 1, 3]>(qs)
    kt = Transpose<perm = [0, 2, 3, 1]>(ks)
    vt = Transpose<perm = [0, 2, 1, 3]>(vs)
    {core}
    m = MatMul(p, vt)
    t = Transpose<perm = [0, 2, 1, 3]>(m)
    y = Reshape(t, join)
}}"""
HALF = {"half": np.float32(0.5), "two": np.float32(2), "third": np.array([0.3], np.float32)}
CORES = {
    "no scale": ("", "s = MatMul(qt, kt)\n p = Softmax(s)"),
    "scale behind": ("", "s = MatMul(qt, kt)\n c = Mul(s, half)\n p = Softmax<axis = 3>(c)"),
    "divided": ("", "s = MatMul(qt, kt)\n c = Div(s, two)\n p = Softmax(c)"),
    "both scaled": ("", "a = Mul(qt, half)\n b = Mul(third, kt)\n s = MatMul(a, b)\n p = Softmax(s)"),
    "whole mask": (
        ", float[N,1,S,T] mask", "s = MatMul(qt, kt)\n c = Mul(s, half)\n d = Add(c, mask)\n p = Softmax(d)",
    ),
    "mask of keys": (", float[N,1,1,T] mask", "s = MatMul(qt, kt)\n d = Add(mask, s)\n p = Softmax(d)"),
    "mask per head": (", float[1,2,S,T] mask", "s = MatMul(qt, kt)\n d = Add(s, mask)\n p = Softmax(d)"),
    "flat mask": (", float[S,T] mask", "s = MatMul(qt, kt)\n d = Add(s, mask)\n p = Softmax(d)"),
}  # fmt: skip


def fed(source: Path, rng: np.random.Generator) -> dict[str, Array]:
    sizes = {"N": 3, "S": 5, "T": 7}
    inputs = onnx.load(source).graph.input
    shapes = {i.name: [d.dim_value or sizes[d.dim_param] for d in i.type.tensor_type.shape.dim] for i in inputs}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def fused(source: Path, output: Path) -> Path:
    model = ir.load(source)
    fuse(model, (), EqualSizes(model))
    ir.save(model, output)
    return output


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("kind", CORES)
def test_attention_becomes_one_operator_with_the_same_numbers(
    write: Write, tmp_path: Path, kind: str, opset: int
) -> None:
    inputs, core = CORES[kind]
    source = write(HEADER.format(opset=opset) + ATTENTION.format(inputs=inputs, core=core), HALF)
    result = fused(source, tmp_path / "o.onnx")
    assert (kinds(result).count("MultiHeadAttention"), kinds(result).count("Softmax")) == (1, 0)
    feeds = fed(source, np.random.default_rng(0))
    np.testing.assert_allclose(answers(result, feeds), answers(source, feeds), rtol=1e-5, atol=1e-5)


def test_one_operator_counts_as_much_arithmetic_as_its_two_products(write: Write, tmp_path: Path) -> None:
    source = write(HEADER.format(opset=17) + ATTENTION.format(inputs="", core=CORES["no scale"][1]), HALF)
    result = fused(source, tmp_path / "o.onnx")
    counted = [
        {item.operator: item.flops for item in cost(ir.load(path), {"N": 3, "S": 5, "T": 7}).operators}
        for path in (source, result)
    ]
    assert counted[1]["com.microsoft.MultiHeadAttention"] == counted[0]["MatMul"]


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min])
def test_rows_that_are_masked_and_rows_that_are_masked_wholly(write: Write, tmp_path: Path, lowest: float) -> None:
    inputs, core = CORES["whole mask"]
    source = write(HEADER.format(opset=17) + ATTENTION.format(inputs=inputs, core=core), HALF)
    result = fused(source, tmp_path / "o.onnx")
    feeds = fed(source, np.random.default_rng(0))
    feeds["mask"] = np.where(feeds["mask"] > 0, 0, lowest).astype(np.float32)
    feeds["mask"][0, 0, 2] = lowest
    np.testing.assert_allclose(answers(result, feeds), answers(source, feeds), rtol=1e-5, atol=1e-5)


REFUSED = {
    "another axis": ("", "s = MatMul(qt, kt)\n p = Softmax<axis = 2>(s)"),
    "a mask for more batches": (", float[M,1,S,T] mask", "s = MatMul(qt, kt)\n d = Add(s, mask)\n p = Softmax(d)"),
    "a mask that is multiplied": (", float[N,1,S,T] mask", "s = MatMul(qt, kt)\n d = Mul(s, mask)\n p = Softmax(d)"),
    "scale on the mask too": (
        ", float[N,1,S,T] mask", "s = MatMul(qt, kt)\n d = Add(s, mask)\n c = Mul(d, half)\n p = Softmax(c)",
    ),
    "a guard behind it": (
        "", "s = MatMul(qt, kt)\n r = Softmax(s)\n bad = IsNaN(r)\n p = Where(bad, half, r)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_attention_stays(write: Write, tmp_path: Path, kind: str) -> None:
    inputs, core = REFUSED[kind]
    text = ATTENTION.format(inputs=inputs, core=core)
    text = text.replace("(float[N,S,8] y)", "(float[A,B,8] y)") if "batches" in kind else text
    result = fused(write(HEADER.format(opset=17) + text, HALF), tmp_path / "o.onnx")
    assert "MultiHeadAttention" not in kinds(result)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("qt = Transpose<perm = [0, 2, 1, 3]>(qs)", "qt = Transpose<perm = [0, 2, 1, 3]>(ks)", ""),
        ("[0, 0, 2, 4]", "[0, -1, 2, 4]", ""),
        ("t = Transpose<perm = [0, 2, 1, 3]>(m)", "t = Transpose<perm = [0, 1, 2, 3]>(m)", "heads are not joined"),
        ("float[N,T,8] k", "float[1,T,8] k", "keys are shared by the batch"),
        ("kt = Transpose<perm = [0, 2, 3, 1]>(ks)", "kt = Transpose<perm = [0, 1, 3, 2]>(ks)", "keys by position"),
    ],
)
def test_dims_are_proven(write: Write, tmp_path: Path, before: str, after: str, reason: str) -> None:
    text = ATTENTION.format(inputs="", core=CORES["no scale"][1]).replace(before, after)
    result = fused(write(HEADER.format(opset=17) + text, HALF), tmp_path / "o.onnx")
    assert ("MultiHeadAttention" not in kinds(result)) == bool(reason), reason


def test_keys_turned_twice(write: Write, tmp_path: Path) -> None:
    text = ATTENTION.format(inputs="", core=CORES["no scale"][1]).replace(
        "kt = Transpose<perm = [0, 2, 3, 1]>(ks)",
        "kh = Transpose<perm = [0, 2, 1, 3]>(ks)\n kt = Transpose<perm = [0, 1, 3, 2]>(kh)",
    )
    source = write(HEADER.format(opset=17) + text, HALF)
    result = fused(source, tmp_path / "o.onnx")
    assert "MultiHeadAttention" in kinds(result)
    feeds = fed(source, np.random.default_rng(0))
    np.testing.assert_allclose(answers(result, feeds), answers(source, feeds), rtol=1e-5, atol=1e-5)


def test_an_old_softmax_is_of_more_than_one_axis(write: Write, tmp_path: Path) -> None:
    source = write(HEADER.format(opset=12) + ATTENTION.format(inputs="", core=CORES["no scale"][1]), HALF)
    assert "MultiHeadAttention" not in kinds(fused(source, tmp_path / "o.onnx"))


def test_dynamic_int8_has_its_attention_in_one_too(write: Write, tmp_path: Path) -> None:
    text = ATTENTION.format(inputs="", core=CORES["no scale"][1]).replace("Reshape(q, split)", "Reshape(w, split)")
    text = text.replace("split = ", "w = MatMul(q, weight)\n split = ")
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    source = write(HEADER.format(opset=17) + text, {**HALF, "weight": weight})
    report = quantize(source, tmp_path / "o.onnx", method="dynamic", target="cpu")
    assert {"MultiHeadAttention", "MatMulInteger"} <= set(kinds(report.output))


# sums in front of normalizations


def test_a_residual_in_front_of_a_normalization_is_a_sum(write: Write, tmp_path: Path) -> None:
    text = HEADER.format(opset=17) + (
        "g (float[N,S,8] x, float[N,S,8] r) => (float[N,S,8] y) {\n"
        "a = Add(x, r)\n n = LayerNormalization(a, w, b)\n c = Add(n, b)\n y = LayerNormalization(c, w, b) }"
    )
    source = write(text, {"w": (8,), "b": (8,)})
    result = fused(source, tmp_path / "o.onnx")
    assert (kinds(result).count("Sum"), kinds(result).count("Add")) == (1, 1)  # the bias stays an Add
    feeds = fed(source, np.random.default_rng(0))
    np.testing.assert_allclose(answers(result, feeds), answers(source, feeds), rtol=1e-5, atol=1e-5)
