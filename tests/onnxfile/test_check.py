"""The structural check passes every sound file and says in a clause what is wrong with one that lies about itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.bundle.seeds import MODELS
from toolkit.errors import FileProblem, InvalidModel
from toolkit.onnxfile.check import check_calls, check_content, check_model
from toolkit.onnxfile.schema import BITS
from toolkit.onnxfile.tensors import inside
from toolkit.onnxfile.wire import VARINT, encode_bytes, encode_number, encode_varint, fields, signed, varint

Change = Callable[[onnx.ModelProto], object]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("external", [False, True])
def test_sound_models_pass(tmp_path: Path, name: str, external: bool) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(MODELS[name](), path, save_as_external_data=external, location="m.data", size_threshold=0)
    assert check_model(path) == (("m.data",) if external and name != "branching" else ())  # its numbers are typed


@pytest.mark.parametrize("kind", sorted({*BITS, TensorProto.STRING}))
def test_every_element_type_in_every_form_that_onnx_writes(kind: int) -> None:
    if kind not in TensorProto.DataType.values():
        pytest.skip("this onnx does not know it")
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    array = np.array([b"a", b"b", b"c"], object) if kind == TensorProto.STRING else np.zeros(3, dtype)
    tensors = [numpy_helper.from_array(array, "raw")]
    with contextlib.suppress(TypeError, ValueError, NotImplementedError):  # some types are written raw only
        tensors.append(helper.make_tensor("typed", kind, [3], array))
    for tensor in tensors:
        graph = helper.make_graph([], "g", [], [], [tensor])
        check_content(helper.make_model(graph).SerializeToString(), None, "m")


def changed(change: Change, name: str = "large") -> bytes:
    model = MODELS[name]()
    change(model)
    content: bytes = model.SerializeToString()
    return content


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def _external(model: onnx.ModelProto, **entries: str) -> None:
    tensor = weight(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: weight(m).dims.append(-1), "negative dim"),
        (lambda m: weight(m).dims.append(2), "need 163840 bytes, not 81920"),
        (lambda m: weight(m).dims.extend([1 << 40, 1 << 40]), "claim"),
        (lambda m: weight(m).dims.extend([1] * 70), "dims, more than any tensor"),
        (lambda m: setattr(weight(m), "data_type", 99), "no such element type"),
        (lambda m: setattr(weight(m), "raw_data", b"short"), "need 81920 bytes, not 5"),
        (lambda m: weight(m).ClearField("raw_data"), "need 20480 entries, not 0"),
        (lambda m: weight(m).ClearField("raw_data") or weight(m).float_data.append(1.0), "need 20480 entries, not 1"),
        (lambda m: _external(m, location="../m.data"), "leaves the folder"),
        (lambda m: _external(m, location="/etc/passwd"), "leaves the folder"),
        (lambda m: _external(m, location="a\\..\\..\\b"), "leaves the folder"),
        (lambda m: _external(m, location=""), "leaves the folder"),
        (lambda m: _external(m, location="x", offset="-1"), "offset '-1'"),
        (lambda m: _external(m, location="x", length="9" * 30), "length"),
        (lambda m: _external(m, location="x", offset="0x10"), "offset"),
        (lambda m: _external(m, location="x", length="7"), "external data has 7"),
        (lambda m: m.graph.node[0].ClearField("op_type"), "node without an operator"),
        (lambda m: setattr(m.opset_import[0], "version", 1 << 31), "no such opset"),
        (lambda m: m.ClearField("graph"), "no graph"),
    ],
)
def test_files_that_lie_about_themselves(change: Change, match: str) -> None:
    with pytest.raises(InvalidModel, match=match) as caught:
        check_content(changed(change), None, "m.onnx")
    assert "\n" not in str(caught.value)


def test_external_data_is_looked_for_and_measured(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(changed(lambda m: _external(m, location="m.data", offset="100")))
    with pytest.raises(InvalidModel, match="is missing: 'm.data'"):
        check_model(path)
    (tmp_path / "m.data").write_bytes(b"\0" * (81920 + 99))
    with pytest.raises(InvalidModel, match="ends at 82020, 'm.data' at 82019"):
        check_model(path)
    (tmp_path / "m.data").write_bytes(b"\0" * (81920 + 100))
    assert check_model(path) == ("m.data",)


def test_external_data_may_be_no_link_out_and_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "inner").symlink_to(tmp_path)
    for location in ("link", "inner/outside", "inner", "nothing", "a\0b"):
        with pytest.raises(ValueError, match="external data"):
            inside(location, folder)


def test_nesting_ends_somewhere() -> None:
    graph = b""
    for _ in range(400):  # model.graph.node.attribute.g …
        graph = encode_bytes(
            1,
            encode_bytes(1, b"c")
            + encode_bytes(2, b"y")
            + encode_bytes(4, b"If")
            + encode_bytes(5, encode_bytes(6, graph)),
        )
    with pytest.raises(InvalidModel, match="nested deeper"):
        check_content(encode_bytes(7, graph), None, "m")


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(InvalidModel, match="a name in the file is damaged"):
        check_content(changed(lambda m: None).replace(b"Relu", b"Re\xff\xfe"), None, "m")


def test_functions_that_call_themselves() -> None:
    check_calls({"a": {"b", "x"}, "b": {"c"}, "c": set()})
    for calls in ({"a": {"a"}}, {"a": {"b"}, "b": {"c"}, "c": {"a"}}):
        with pytest.raises(ValueError, match="calls itself"):
            check_calls(calls)
    model = MODELS["branching"]()
    model.functions[0].node.add(op_type="Twice", domain="own", input=["a"], output=["again"])
    with pytest.raises(InvalidModel, match="'own:Twice:' calls itself"):
        check_content(model.SerializeToString(), None, "m")


@pytest.mark.parametrize(
    "content", [b"\x00", b"\xff", b"\x3a\xff\xff\xff\xff\x0f", b"\x3b", b"\x08" + b"\xff" * 11, b"text"]
)
def test_what_is_no_protobuf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match="not a sound ONNX file"):
        check_model(path)
    path.write_bytes(b"")
    with pytest.raises(FileProblem, match="empty"):
        check_model(path)


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_are_read_as_they_are_written(number: int) -> None:
    assert varint(encode_varint(number), 0) == (number, len(encode_varint(number)))
    (field,) = fields(encode_number(3, number), 0, len(encode_number(3, number)))
    assert (field.number, field.wire, field.value) == (3, VARINT, number)
    assert signed(number) % (1 << 64) == number


@given(st.binary(max_size=200))
def test_no_bytes_bring_another_error(content: bytes) -> None:
    try:
        check_content(content, None, "m")
    except InvalidModel as exc:
        assert "\n" not in str(exc)


@pytest.mark.parametrize(
    ("name", "value"),
    [("pads", [1, -2, 1, 1]), ("strides", [0, 1]), ("dilations", [1, -1]), ("kernel_shape", [0, 3]), ("group", -1),
     ("group", 1 << 40), ("pads", [1 << 62] * 4)],
)  # fmt: skip
def test_attributes_that_engines_count_with(name: str, value: object) -> None:
    def change(model: onnx.ModelProto) -> None:
        node = model.graph.node[0]
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    with pytest.raises(InvalidModel, match=f"a node Conv with {name}"):
        check_content(changed(change, "image"), None, "m")


def test_a_pad_that_cuts_is_sound() -> None:
    node = helper.make_node("Pad", ["x"], ["y"], pads=[0, -1, 0, -1])
    graph = helper.make_graph([node], "g", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 2)])
    check_content(model.SerializeToString(), None, "m")
