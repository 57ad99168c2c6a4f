"""What users name as models, and which of them a target can take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from toolkit.errors import FileProblem, InvalidModel, NotApplicable
from toolkit.preprocess import InputSteps, Preprocessing, Scale
from toolkit.profiler.models import Model, models
from toolkit.providers import registry
from toolkit.targets import Target

CPU = Target(name="cpu-fp32", provider="cpu", precisions=("float32",))


def relu(path: Path, opset: int = 17) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def test_an_onnx_file_is_described_without_an_engine(tmp_path: Path) -> None:
    (found,) = models([relu(tmp_path / "relu.onnx")])
    assert (found.name, found.kind, found.precision) == ("relu.onnx", "onnx", "float32")
    assert found.inputs is not None and found.inputs[0].shape == ("batch", 4)
    assert found.size_bytes > 0


def test_other_texts_are_sources_and_other_files_are_left_to_the_engine(null_model: Callable[..., str]) -> None:
    assert [model.kind for model in models(["zoo:cnn", "pkg.mod:make", null_model()])] == ["source", "source", "file"]


@pytest.mark.parametrize("text", ["nothere", "nothere.pt2", "nothere.json", "nothere.py:make", "zoo:", ":x", "a?b=c:d"])
def test_a_misspelt_file_is_no_source(text: str) -> None:
    with pytest.raises(InvalidModel, match="no such model; expected a file or folder that exists, zoo:NAME"):
        models([text])


def test_sources_may_take_arguments_and_lie_anywhere(tmp_path: Path) -> None:
    factory = tmp_path / "net.py"
    factory.write_text("def make(): ...")
    texts = ["zoo:cnn?width=8", "pkg.mod:make?a=b:c", f"{factory}:make?depth=2", str(tmp_path), f"{tmp_path}?x=1"]
    assert [model.kind for model in models(texts)] == ["source"] * len(texts)


def test_names_that_clash_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = relu(tmp_path / "a" / "m.onnx"), relu(tmp_path / "b" / "m.onnx")
    assert [model.name for model in models([one, two])] == [str(one), str(two)]
    assert [model.name for model in models([one, one])] == [str(one), f"{one}#2"]


def test_described_models_keep_their_place(tmp_path: Path) -> None:
    given = Model(name="given", path="x", kind="source")
    assert [model.name for model in models(["zoo:a", given, "zoo:b"])] == ["zoo:a", "given", "zoo:b"]


def test_a_file_that_is_missing_or_too_old_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="no such model file"):
        models([tmp_path / "absent.onnx"])
    with pytest.raises(InvalidModel, match="--opset 17"):
        models([relu(tmp_path / "old.onnx", opset=6)])


@pytest.mark.parametrize(
    ("model", "target", "reason"),
    [
        (Model(name="s", path="zoo:s", kind="source"), CPU, "cpu runs ONNX files; toolkit export makes one"),
        (Model(name="m", path="m.onnx", kind="onnx"), Target(name="t", provider="torch"), "torch opens sources"),
        (
            Model(name="m", path="m.onnx", kind="onnx", precision="int8"),
            CPU,
            "the file is int8; the target takes float32",
        ),
        (
            Model(name="m", path="m.onnx", kind="onnx", precision="bfloat16"),
            Target(name="c", provider="cpu"),
            "cpu runs",
        ),
        (
            Model(name="v", path="m.onnx", kind="onnx", made_for=("openvino",)),
            CPU,
            "this variant was made for openvino",
        ),
    ],
)
def test_what_does_not_fit_says_why(model: Model, target: Target, reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        model.require_fit(target, registry.provider(target.provider))


def test_what_fits_is_not_refused() -> None:
    provider = registry.provider("cpu")
    Model(name="m", path="m.onnx", kind="onnx", precision="float32").require_fit(CPU, provider)
    Model(name="m", path="m.onnx", kind="onnx", precision="int8", made_for=("cpu",)).require_fit(
        Target(name="cpu", provider="cpu"), provider
    )


def test_preprocessing_that_an_export_recorded_is_found(tmp_path: Path) -> None:
    recipe = Preprocessing((InputSteps("x", (Scale(factor=0.5),), "image"),))
    path = relu(tmp_path / "relu.onnx")
    assert models([path])[0].preprocessing is None
    graph = onnx.load(path)
    graph.metadata_props.add(key="toolkit.preprocessing", value=recipe.to_json())
    onnx.save(graph, path)
    assert models([path])[0].preprocessing == recipe
