"""Preprocessing built into the graph answers as numpy's does, and what cannot be built in stays outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.errors import NotApplicable
from toolkit.optimizer.fuse_preprocessing import fuse_preprocessing
from toolkit.preprocess import (
    Cast,
    CenterCrop,
    Channels,
    Clip,
    InputSteps,
    Layout,
    Normalize,
    Preprocessing,
    Resize,
    Scale,
    Step,
)
from toolkit.runtime.loader import load

IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def write(path: Path, *steps: Step, channels: int = 3, recorded: bool = True) -> Path:
    weight = np.random.default_rng(0).standard_normal((4, channels, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("ReduceMean", ["c"], ["y"], axes=[2, 3])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, 16, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 1, 1])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if recorded:
        text = Preprocessing((InputSteps("x", steps),)).to_json()
        model.metadata_props.append(onnx.StringStringEntryProto(key="toolkit.preprocessing", value=text))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "steps",
    [
        (Layout("NHWC", "NCHW"), Scale(1 / 255), IMAGENET),
        (Scale(1 / 255), Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), axis=3), Layout("NHWC", "NCHW")),
        (Channels((2, 1, 0)), Layout("NHWC", "NCHW"), Normalize((127.5,), (128.0,))),
        (Channels((0, 0, 0)), Cast("float32"), Clip(10, 200), Layout("NHWC", "NCHW")),
        (Clip(10, 200), Layout("NHWC", "NCHW"), Scale(2.0, -1.0)),
    ],
)
def test_the_fused_model_answers_as_numpy_and_the_model_do(tmp_path: Path, steps: tuple[Step, ...]) -> None:
    model = write(tmp_path / "m.onnx", *steps)
    report = fuse_preprocessing(model, tmp_path / "fused.onnx")
    assert report.outside is None
    assert len(report.built_in["x"]) == len(steps)
    assert report.inputs_compared == 12
    channels = 1 if Channels((0, 0, 0)) in steps else 3
    pictures = np.random.default_rng(3).integers(0, 256, (3, 16, 12, channels), dtype=np.uint8)
    wanted = Preprocessing((InputSteps("x", steps),)).apply({"x": pictures})
    with load(model, "cpu") as plain:
        expected = plain(wanted)["y"]
    for provider in ("cpu", "openvino"):
        with load(tmp_path / "fused.onnx", provider) as fused:
            assert fused.inputs[0].dtype == "uint8"
            assert fused.inputs[0].name == "x"
            np.testing.assert_allclose(fused({"x": pictures})["y"], expected, rtol=1e-4, atol=1e-5)


def test_grey_pictures_get_their_axis_inside(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", Layout("NHW", "NCHW"), Scale(1 / 255), channels=1)
    fuse_preprocessing(model, tmp_path / "fused.onnx")
    with load(tmp_path / "fused.onnx", "cpu") as fused:
        assert fused.inputs[0].shape == ("batch", 16, 12)


def test_what_resamples_stays_outside_and_is_recorded(tmp_path: Path) -> None:
    steps = (Resize(shortest=20), CenterCrop(16, 12), Layout("NHWC", "NCHW"), Scale(1 / 255))
    report = fuse_preprocessing(write(tmp_path / "m.onnx", *steps), tmp_path / "fused.onnx")
    assert report.built_in == {"x": ("layout", "scale")}
    assert report.outside == Preprocessing((InputSteps("x", steps[:2]),))
    recorded = {entry.key: entry.value for entry in onnx.load(tmp_path / "fused.onnx").metadata_props}
    assert Preprocessing.from_json(recorded["toolkit.preprocessing"]) == report.outside


def test_nothing_to_build_in_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="records no preprocessing"):
        fuse_preprocessing(write(tmp_path / "a.onnx", recorded=False), tmp_path / "fused.onnx")
    with pytest.raises(NotApplicable, match="none of the last steps"):
        fuse_preprocessing(write(tmp_path / "b.onnx", Scale(2.0), Resize(16, 12)), tmp_path / "fused.onnx")
    assert not (tmp_path / "fused.onnx").exists()
