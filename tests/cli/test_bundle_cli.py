"""``toolkit bundle``: from a model to a prepared, packed bundle that an application opens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import toolkit
from tests.bundle.seeds import image_model, large_model
from toolkit.bundle.reader import open_bundle
from toolkit.cli.main import run
from toolkit.files import sha256
from toolkit.preprocess import InputSteps, Layout, Normalize, Preprocessing, Resize


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    onnx.save(large_model(), tmp_path / "net.onnx")
    arguments = ["--target", "cpu", "--target", "openvino", "--licence", "MIT"]
    assert run(["bundle", "create", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "net.bundle"), *arguments]) == 0
    return tmp_path / "net.bundle"


def test_a_bundle_says_where_its_model_comes_from(bundle: Path, tmp_path: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert manifest.licence == "MIT"
    assert manifest.provenance.source_sha256 == sha256(tmp_path / "net.onnx")
    assert {"onnx", "onnxruntime"} <= set(manifest.provenance.versions)


def test_the_record_of_a_quantized_file_is_taken_over(tmp_path: Path) -> None:
    model = large_model()
    model.metadata_props.add(key="toolkit.quantization", value='{"method": "static", "observer": "mse"}')
    onnx.save(model, tmp_path / "q.onnx")
    assert run(["bundle", "create", str(tmp_path / "q.onnx"), "-o", str(tmp_path / "q.bundle"), "--target", "cpu"]) == 0
    assert open_bundle(tmp_path / "q.bundle").manifest.provenance.calibration == {"method": "static", "observer": "mse"}


def test_prepare_verify_pack_and_open(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["bundle", "prepare", str(bundle), "--target", "cpu", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["target"] for item in found["made"]] == ["cpu"]
    assert found["made"][0]["size_bytes"] > 0
    assert run(["bundle", "verify", str(bundle)]) == 0
    assert run(["bundle", "pack", str(bundle), "-o", str(tmp_path / "packed.bundle")]) == 0
    with toolkit.load(tmp_path / "packed.bundle", "cpu") as session:
        assert session.notes == ("opened the form prepared for cpu",)
        assert session({"x": np.ones((1, 128), np.float32)})["y"].shape == (1, 160)


def test_verify_looks_at_prepared_forms_too(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "prepare", str(bundle), "--target", "cpu"]) == 0
    form = open_bundle(bundle).manifest.variants[0].prepared[0]
    (bundle / form.model).write_bytes(b"x")
    capsys.readouterr()
    assert run(["bundle", "verify", str(bundle)]) == 2
    assert "not the size" in capsys.readouterr().err


def test_prepare_for_what_the_bundle_does_not_have(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "prepare", str(bundle), "--target", "cuda"]) == 2
    assert "no variant of the bundle is for this target" in capsys.readouterr().err


def test_preprocessing_is_built_into_the_bundles_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = (Resize(8, 8), Layout("NHWC", "NCHW"), Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    model = image_model()
    model.metadata_props.add(key="toolkit.preprocessing", value=Preprocessing((InputSteps("x", steps),)).to_json())
    onnx.save(model, tmp_path / "net.onnx")
    paths = [str(tmp_path / "net.onnx"), "-o"]
    assert run(["bundle", "create", *paths, str(tmp_path / "plain.bundle"), "--target", "cpu"]) == 0
    fused = ["--target", "cpu", "--fuse-preprocessing"]
    assert run(["bundle", "create", *paths, str(tmp_path / "fused.bundle"), *fused]) == 0
    assert "layout, normalize" in capsys.readouterr().err
    pictures = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    answers = []
    for name in ("plain", "fused"):
        with toolkit.load(tmp_path / f"{name}.bundle", "cpu") as session:
            feeds = session.preprocess({"x": pictures})
            answers.append(session(feeds)["y"])
    assert feeds["x"].dtype == np.uint8
    assert feeds["x"].shape == (2, 8, 8, 3)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-4, atol=1e-5)
    provenance = open_bundle(tmp_path / "fused.bundle").manifest.provenance
    assert provenance.source_sha256 == sha256(tmp_path / "net.onnx")


def test_a_model_without_preprocessing_has_none_to_build_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(large_model(), tmp_path / "net.onnx")
    arguments = [str(tmp_path / "net.onnx"), "-o", str(tmp_path / "net.bundle"), "--target", "cpu"]
    assert run(["bundle", "create", *arguments, "--fuse-preprocessing"]) == 1
    assert "records no preprocessing" in capsys.readouterr().err
    assert not (tmp_path / "net.bundle").exists()
