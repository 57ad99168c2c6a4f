"""Digests of models: equal where opening reads the same, different where it does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from toolkit.files import sha256
from toolkit.profiler.identity import identified, source_digest
from toolkit.profiler.models import Model, models

NullModelFile = Callable[..., str]


def external(folder: Path, value: float) -> Path:
    """A product whose weights lie in a file beside it."""
    folder.mkdir()
    weights = np.full((64, 64), value, np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(weights, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return folder / "m.onnx"


def test_weights_beside_the_file_count(tmp_path: Path) -> None:
    one, two = external(tmp_path / "one", 1.0), external(tmp_path / "two", 2.0)
    assert one.read_bytes() == two.read_bytes()
    first, second = identified(models([one, two]))
    assert first.sha256 != second.sha256 and len(first.sha256) == 64
    assert first.size_bytes == one.stat().st_size + (tmp_path / "one" / "m.data").stat().st_size


def test_a_copy_elsewhere_is_the_same_model(tmp_path: Path, null_model: NullModelFile) -> None:
    file = Path(null_model())
    copy = shutil.copy(file, tmp_path / "copy.json")
    first, second = identified(models([file, copy]))
    assert first.sha256 == second.sha256
    assert identified([first]) == [first]


def test_an_intermediate_representation_counts_its_weights(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text("<net/>")
    (tmp_path / "m.bin").write_bytes(b"12345")
    model = Model(name="m", path=str(tmp_path / "m.xml"), kind="file", size_bytes=6)
    (found,) = identified([model])
    assert found.size_bytes == 11
    (tmp_path / "m.bin").write_bytes(b"54321")
    assert identified([model])[0].sha256 != found.sha256


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.py"
    file.write_text("def build(): ...\ndef other(): ...\n")
    digest = source_digest(f"{file}:build")
    assert digest != source_digest(f"{file}:other")
    monkeypatch.chdir(tmp_path)
    assert source_digest("net.py:build") == digest
    monkeypatch.syspath_prepend(tmp_path)
    module = source_digest("net:build")
    file.write_text("def build(): return 1\ndef other(): ...\n")
    assert source_digest("net.py:build") != digest
    assert source_digest("net:build") != module
    assert source_digest("zoo:cnn") != source_digest("zoo:rnn")
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = source_digest("hub")
    (folder / "config.json").write_text("{ }")
    assert source_digest("hub") != before


def test_records_carry_them(null_model: NullModelFile) -> None:
    file = null_model(delay_ns=1_000_000)
    report = toolkit.profile(file, "null", budget_s=0.2, processes=1)
    (case,) = report.cases
    assert case.model_sha256 == sha256(file)
    assert case.size_bytes == Path(file).stat().st_size
    assert report.time_utc.endswith("+00:00")
