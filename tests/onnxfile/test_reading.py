"""ONNX files read without onnx: what is sound, where the weights are, what they hash to."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conformance.models import LINEAR, write_external, write_quantized
from toolkit.errors import InvalidModel
from toolkit.onnxfile.reading import check_onnx, external_files, opset
from toolkit.providers.fingerprint import cache_key, model_digest
from toolkit.targets import Target


def external(name: str, location: str) -> TensorProto:
    """A tensor that says its four bytes are at the start of ``location``."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def write_scattered(folder: Path) -> Path:
    """A model whose weights are in four files: of the graph, a branch, a constant and a function."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["in_branch"], ["chosen"])],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [1])],
        [external("in_branch", "branch.bin")],
    )
    constant = helper.make_node("Constant", [], ["constant"])
    constant.attribute.append(helper.make_attribute("value", external("", "constant.bin")))
    nodes = [constant, helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(
        nodes,
        "scattered",
        [helper.make_tensor_value_info("which", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [external("w", "weights/main.bin"), numpy_helper.from_array(np.zeros(1000, np.float32), "inside")],
    )
    held = helper.make_node("Constant", [], ["out"])
    held.attribute.append(helper.make_attribute("value", external("", "function.bin")))
    function = helper.make_function("own", "f", [], ["out"], [held], [helper.make_opsetid("", 17)])
    model = helper.make_model(graph, functions=[function], opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "scattered.onnx"
    path.write_bytes(model.SerializeToString())
    for name in ("branch.bin", "constant.bin", "function.bin", "weights/main.bin"):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"\0" * 4)
    return path


def test_external_files_are_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    found = external_files(write_scattered(tmp_path))
    assert found == ("branch.bin", "constant.bin", "function.bin", "weights/main.bin")


def test_a_model_that_keeps_its_weights_has_none(tmp_path: Path) -> None:
    assert external_files(LINEAR.write(tmp_path)) == ()
    assert external_files(write_quantized(tmp_path)) == ()


@pytest.mark.parametrize("file", ["scattered.onnx", "branch.bin", "constant.bin", "function.bin", "weights/main.bin"])
def test_the_digest_covers_every_file(tmp_path: Path, file: str) -> None:
    path = write_scattered(tmp_path)
    before = model_digest(path)
    assert model_digest(path) == before
    changed = tmp_path / file
    if file == "scattered.onnx":
        model = onnx.load(path, load_external_data=False)
        model.doc_string = "changed"
        changed.write_bytes(model.SerializeToString())
    else:
        changed.write_bytes(b"\0\0\0\1")
    assert model_digest(path) != before


def test_missing_weights_have_no_digest(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InvalidModel, match=r"external data is missing; got weights\.bin"):
        model_digest(path)


def test_the_weights_of_an_openvino_ir_count(tmp_path: Path) -> None:
    graph, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    graph.write_text("<net/>")
    weights.write_bytes(b"one")
    before = model_digest(graph)
    weights.write_bytes(b"two")
    assert model_digest(graph) != before


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_truncated_file_is_no_model(tmp_path: Path, cut: int) -> None:
    path = LINEAR.write(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    for check in (check_onnx, external_files):
        with pytest.raises(InvalidModel, match="not a readable ONNX file"):
            check(path)


@pytest.mark.parametrize("content", [b"text\n" * 10, b"\xff" * 64, b"\x08\x08", b"{}", b"\x80\x04\x95"])
def test_other_content_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match="not a readable ONNX file"):
        check_onnx(path)


def test_whatever_is_damaged_the_answer_is_an_error_or_a_list(tmp_path: Path) -> None:
    original = write_scattered(tmp_path).read_bytes()
    generator = random.Random(0)
    path = tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(300):
        content = bytearray(original)
        for _ in range(generator.randint(1, 8)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            external_files(path)
        except InvalidModel:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("version", [6, 17])
def test_the_opset_is_read(tmp_path: Path, version: int) -> None:
    model = onnx.load(LINEAR.write(tmp_path))
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("com.other", 3), helper.make_opsetid("", version)])
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert opset(path) == version
    del model.opset_import[:]
    path.write_bytes(model.SerializeToString())
    assert opset(path) is None


def test_a_good_file_passes(tmp_path: Path) -> None:
    check_onnx(LINEAR.write(tmp_path))


BASE = Target(name="a", description="b", provider="cpu", precisions=("float32",))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "z"}, True),
        ({"description": "z"}, True),
        ({"precisions": ()}, True),
        ({"provider": "cuda"}, False),
        ({"device": "1"}, False),
        ({"inference_precision": "tf32"}, False),
        ({"threads": 3}, False),
        ({"streams": 2}, False),
        ({"mode": "throughput"}, False),
        ({"engine_options": {"a": 1}}, False),
    ],
    ids=lambda value: str(value),
)
def test_a_key_changes_with_what_the_engine_is_asked_for(tmp_path: Path, change: dict[str, object], same: bool) -> None:
    import msgspec

    path = LINEAR.write(tmp_path)
    other = msgspec.structs.replace(BASE, **change)
    assert (cache_key(path, BASE, "1.0") == cache_key(path, other, "1.0")) is same


def test_a_key_changes_with_facts_and_not_with_their_spelling(tmp_path: Path) -> None:
    path = LINEAR.write(tmp_path)
    keys = [cache_key(path, BASE, *facts) for facts in (("1.0",), ("1.1",), ("1.0", "x"), ("1", ".0"))]
    assert len(set(keys)) == 4
    assert all(len(key) == 64 for key in keys)
