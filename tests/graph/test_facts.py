from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.building import build, normal, proto, write
from toolkit.errors import InvalidModel
from toolkit.graph.facts import facts, require_runnable
from toolkit.tensors import TensorSpec

LINEAR = "linear (float[batch, 4] x) => (float[batch, 3] y) { y = MatMul(x, w) }"


def test_facts_of_a_small_model(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", LINEAR, weights={"w": normal(4, 3)})
    found = facts(path)
    assert found.inputs == (TensorSpec("x", "float32", ("batch", 4)),)
    assert found.outputs == (TensorSpec("y", "float32", ("batch", 3)),)
    assert (found.opset, found.ir_version, found.domains) == (17, 8, {"ai.onnx": 17})
    assert (found.precision, found.quantized, found.parameters) == ("float32", False, 12)
    assert found.size_bytes == path.stat().st_size
    assert (found.node_count, found.operators) == (1, {"MatMul": 1})
    assert found.dynamic_dims == ("batch",)


def test_unknown_dims_get_the_name_of_their_tensor_and_axis() -> None:
    model = build("unknown (float[?, 3, ?] x) => (float[unk__7, 3, ?] y) { y = Relu(x) }")
    found = facts(model)
    assert found.inputs[0].shape == ("x_dim0", 3, "x_dim2")
    assert found.outputs[0].shape == ("y_dim0", 3, "y_dim2")


def test_an_unknown_rank_is_no_shape() -> None:
    message = proto("any (float[batch] x) => (float[batch] y) { y = Relu(x) }")
    message.graph.output[0].type.tensor_type.ClearField("shape")
    assert facts(ir.serde.deserialize_model(message)).outputs[0].shape is None


def test_weights_listed_as_inputs_are_no_inputs() -> None:
    model = build(LINEAR, weights={"w": normal(4, 3)}, opset=8, ir_version=3)
    assert len(model.graph.inputs) == 2
    assert [spec.name for spec in facts(model).inputs] == ["x"]


def test_values_come_back_from_the_metadata() -> None:
    model = build("ids (int64[n] ids) => (int64[n] y) { y = Identity(ids) }")
    model.metadata_props["toolkit.values"] = json.dumps({"ids": [0, 511]})
    assert facts(model).inputs[0].values == (0, 511)
    assert facts(model).metadata == {"toolkit.values": '{"ids": [0, 511]}'}
    model.metadata_props["toolkit.values"] = "{"
    with pytest.raises(InvalidModel, match=r"toolkit\.values"):
        facts(model)


def test_operators_of_subgraphs_and_other_domains_count() -> None:
    model = build(
        """branches (bool c, float[n] x) => (float[n] y) {
            y = If (c) <then_branch = one () => (float[n] a) { a = Relu(x) },
                        else_branch = two () => (float[n] b) { t = com.microsoft.Gelu(x) b = Relu(t) }>
        }""",
        imports=', "com.microsoft" : 1',
    )
    found = facts(model)
    assert found.operators == {"Relu": 2, "If": 1, "com.microsoft.Gelu": 1}
    assert found.node_count == 4
    assert found.domains == {"ai.onnx": 17, "com.microsoft": 1}


def quantized_weight(dtype: int, name: str = "w") -> onnx.TensorProto:
    return onnx.helper.make_tensor(name, dtype, [4, 3], np.arange(12) % 7)


WEIGHT_ONLY = "weights (float[n, 4] x) => (float[n, 3] y) { d = DequantizeLinear(w, s) y = MatMul(x, d) }"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(onnx.TensorProto.INT8, "int8"), (onnx.TensorProto.UINT8, "int8"), (onnx.TensorProto.INT4, "int4")],
)
def test_weight_only_quantization_is_the_precision_of_the_weights(dtype: int, expected: str) -> None:
    message = proto(WEIGHT_ONLY, opset=21, ir_version=10, weights={"s": np.float32(0.1)})
    message.graph.initializer.append(quantized_weight(dtype))
    found = facts(ir.serde.deserialize_model(message))
    assert (found.precision, found.quantized) == (expected, True)


@pytest.mark.parametrize(("bits", "expected"), [(4, "int4"), (8, "int8")])
def test_packed_weights_are_counted_by_their_bits(bits: int, expected: str) -> None:
    model = build(
        f"packed (float[n, 32] x) => (float[n, 8] y) {{ y = com.microsoft.MatMulNBits<K=32, N=8, bits={bits}, "
        "block_size=32>(x, w, s) }",
        weights={"w": np.zeros((8, 1, 4 * bits), np.uint8), "s": np.ones(8, np.float32)},
        imports=', "com.microsoft" : 1',
    )
    assert facts(model).precision == expected


def test_quantized_activations_alone_are_int8() -> None:
    model = build(
        "dynamic (float[n, 4] x) => (int32[n, 3] y) { q, s, z = DynamicQuantizeLinear(x) y = MatMulInteger(q, w, z) }",
        weights={"w": np.zeros((4, 3), np.int8)},
    )
    assert (facts(model).precision, facts(model).quantized) == ("int8", True)


def test_float_precision_is_where_the_bytes_are() -> None:
    half = build(
        "half (float[n, 4] x) => (float[n, 3] y) {h = Cast<to=10>(x) m = MatMul(h, w) f = Cast<to=1>(m) y = Add(f, b)}",
        weights={"w": normal(4, 3, dtype=np.float16), "b": normal(3)},
    )
    assert (facts(half).precision, facts(half).quantized) == ("float16", False)
    weightless = build("none (float16[n] x) => (float16[n] y) { y = Relu(x) }")
    assert facts(weightless).precision == "float16"
    no_float = build("ids (int64[n] x) => (int64[n] y) { y = Identity(x) }")
    assert facts(no_float).precision == "float32"


def test_an_opset_no_engine_runs_names_the_command_that_helps() -> None:
    old = facts(build("old (float[n] x) => (float[n] y) { y = Relu(x) }", opset=6, ir_version=3))
    with pytest.raises(InvalidModel) as caught:
        require_runnable(old, "old.onnx")
    assert "toolkit optimize old.onnx -o NEW.onnx --opset 17" in str(caught.value)
    assert "\n" not in str(caught.value)
    require_runnable(facts(build(LINEAR, weights={"w": normal(4, 3)}, opset=7, ir_version=3)), "new.onnx")
