from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.building import build, normal, proto, write
from toolkit.errors import FileProblem, InvalidModel, ToolkitError
from toolkit.graph import files
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model

LINEAR = "linear (float[batch, 4] x) => (float[batch, 3] y) { y = MatMul(x, w) }"
WEIGHTS = {"w": normal(4, 3)}


def linear(path: Path) -> Path:
    return write(path, LINEAR, weights=WEIGHTS)


def external(folder: Path, **changes: str) -> Path:
    """A model whose weight is in ``weights.bin``; ``changes`` to the entries that say where."""
    model = proto(LINEAR, weights=WEIGHTS)
    tensor = model.graph.initializer[0]
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": "48", **changes}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def problem(path: Path) -> ToolkitError:
    """The error that loading ``path`` raises, checked to be what every such error has to be."""
    with pytest.raises(ToolkitError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_model_survives_writing_and_reading(tmp_path: Path) -> None:
    model = load_model(linear(tmp_path / "a.onnx"))
    save_model(model, tmp_path / "b.onnx")
    again = load_model(tmp_path / "b.onnx")
    assert [node.op_type for node in again.graph] == ["MatMul"]
    np.testing.assert_array_equal(again.graph.initializers["w"].const_value.numpy(), WEIGHTS["w"])
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["a.onnx", "b.onnx"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        save_model(build(LINEAR, weights=WEIGHTS), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_output_of_unknown_rank_is_fine(tmp_path: Path) -> None:
    message = proto(LINEAR, weights=WEIGHTS)
    message.graph.output[0].type.tensor_type.ClearField("shape")
    path = tmp_path / "model.onnx"
    path.write_bytes(message.SerializeToString())
    save_model(load_model(path), tmp_path / "again.onnx")
    assert facts(tmp_path / "again.onnx").outputs[0].shape is None


def test_missing_directory_empty(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    assert isinstance(problem(tmp_path / "modell.onnx"), FileProblem)
    assert "did you mean" in str(problem(tmp_path / "modell.onnx"))
    assert "directory" in str(problem(tmp_path / "folder.onnx"))
    assert "is empty" in str(problem(tmp_path / "empty.onnx"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"this is no model\nat all", "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "git-lfs"),
        (b"<!DOCTYPE html><html></html>", "text file"),
        (bytes(1000), "damaged"),
        (b"\xff" * 500, "damaged"),
        (b"PK\x03\x04" + bytes(200), "damaged"),
        (b"\x0a\x03abc\x12\x05hello", "holds no ONNX model"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no ONNX model"),
        (np.random.default_rng(0).bytes(800), "damaged"),
    ],
    ids=["text", "git-lfs", "html", "zeros", "ones", "zip", "other protobuf", "no graph", "random"],
)
def test_what_is_no_model_is_said_in_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    assert expected in str(problem(path))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_truncated_files(tmp_path: Path, part: float) -> None:
    content = linear(tmp_path / "model.onnx").read_bytes()
    short = tmp_path / "short.onnx"
    short.write_bytes(content[: int(len(content) * part)])
    assert isinstance(problem(short), InvalidModel)


def test_a_flipped_byte_anywhere_is_harmless_or_one_line(tmp_path: Path) -> None:
    content = linear(tmp_path / "model.onnx").read_bytes()
    path = tmp_path / "flipped.onnx"
    refused = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        path.write_bytes(bytes(flipped))
        try:
            facts(path)
        except ToolkitError as exc:
            assert "\n" not in str(exc)
            refused += 1
    assert refused > len(content) // 3  # most of this small file is structure


def test_a_tensor_of_the_wrong_size_is_found_before_it_is_read(tmp_path: Path) -> None:
    model = proto(LINEAR, weights=WEIGHTS)
    model.graph.initializer[0].dims[0] = 400_000_000
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert "'w' does not have the size of its shape" in str(problem(path))


def test_sparse_weights_are_refused_not_dropped(tmp_path: Path) -> None:
    model = proto(LINEAR, weights=WEIGHTS)
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64))
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert "sparse" in str(problem(path))


def test_an_input_that_nobody_defines_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", LINEAR)
    assert "not a valid ONNX model" in str(problem(path))


def test_external_data_is_mapped_when_it_is_used(tmp_path: Path) -> None:
    weight = load_model(external(tmp_path)).graph.initializers["w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    assert weight.raw is None
    np.testing.assert_array_equal(weight.numpy(), WEIGHTS["w"])


def test_external_data_of_a_file_given_by_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_model("model.onnx").graph.initializers["w"].const_value.numpy(), WEIGHTS["w"])


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "sub/../../weights.bin", ""])
def test_external_data_stays_in_its_folder(tmp_path: Path, location: str) -> None:
    assert "external data leaves the model's folder" in str(problem(external(tmp_path, location=location)))


def test_external_data_does_not_leave_through_a_link(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.bin"
    inside.mkdir()
    outside.write_bytes(bytes(48))
    path = external(inside, location="link.bin")
    (inside / "link.bin").symlink_to(outside)
    assert "through a link" in str(problem(path))


def test_external_data_with_several_names_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "other.bin").hardlink_to(tmp_path / "weights.bin")
    assert "hard links" in str(problem(path))


def test_missing_external_data_names_the_file(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    found = problem(path)
    assert isinstance(found, FileProblem)
    assert "weights.bin" in str(found)


@pytest.mark.parametrize("changes", [{"offset": "8"}, {"length": "40"}, {"length": "4000"}])
def test_external_data_fits_its_file_and_its_tensor(tmp_path: Path, changes: dict[str, str]) -> None:
    assert "does not fit" in str(problem(external(tmp_path, **changes)))


def test_a_negative_offset_says_so(tmp_path: Path) -> None:
    assert "offset" in str(problem(external(tmp_path, offset="-4")))


def test_small_external_data_comes_inside_when_written(tmp_path: Path) -> None:
    model = load_model(external(tmp_path))
    (tmp_path / "out").mkdir()
    save_model(model, tmp_path / "out" / "one.onnx")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["one.onnx"]
    written = load_model(tmp_path / "out" / "one.onnx").graph.initializers["w"].const_value
    np.testing.assert_array_equal(written.numpy(), WEIGHTS["w"])
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor), "the model itself stays as it is"


def test_large_weights_go_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SINGLE_FILE_BYTES", 3000)
    large = normal(40, 30)
    text = "large (float[batch, 40] x) => (float[batch, 30] y) { y = MatMul(x, w) }"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_model(build(text, weights={"w": large}), tmp_path / name / "model.onnx")
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["model.onnx", "model.onnx.data"]
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = load_model(tmp_path / "a" / "model.onnx")
    np.testing.assert_array_equal(again.graph.initializers["w"].const_value.numpy(), large)
    assert facts(tmp_path / "a" / "model.onnx").size_bytes > 4800
    save_model(again, tmp_path / "a" / "model.onnx")  # onto the file that its own weights are mapped from
    rewritten = load_model(tmp_path / "a" / "model.onnx").graph.initializers["w"].const_value
    np.testing.assert_array_equal(rewritten.numpy(), large)


def test_an_invalid_model_is_not_written(tmp_path: Path) -> None:
    model = build(LINEAR, weights=WEIGHTS)
    model.graph.initializers.pop("w")
    with pytest.raises(InvalidModel, match="not valid ONNX"):
        save_model(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="directory does not exist"):
        save_model(build(LINEAR, weights=WEIGHTS), tmp_path / "none" / "model.onnx")
