"""Weights lie in a bundle once, mapped from files that variants share, and models come out of it as they went in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.bundle.seeds import MODELS, large_model
from toolkit.bundle.manifest import Manifest, Variant
from toolkit.bundle.reader import Bundle, check_variant, open_bundle
from toolkit.bundle.weights import SMALLEST_BYTES
from toolkit.bundle.writer import VariantSource, add_variant, create_bundle
from toolkit.errors import InvalidBundle
from toolkit.runtime.loader import load
from toolkit.targets import Target


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def source(model: Path, name: str) -> VariantSource:
    target = Target(name="cpu", provider="cpu")
    data = model.with_name(f"{model.name}.data")
    variant = Variant(name=name, model=model.name, precision="float32", targets=(target,), files={})
    return VariantSource(variant, model, (data,) if data.is_file() else ())


def made(tmp_path: Path, *sources: VariantSource) -> Bundle:
    return create_bundle(tmp_path / "m.bundle", Manifest(name="m", inputs=(), outputs=()), sources)


def data_files(bundle: Bundle) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in bundle.folder.rglob("*.data")}


def saved(path: Path, proto: onnx.ModelProto, *, external: bool = False) -> Path:
    onnx.save(proto, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=1024)
    return path


def weights(path: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("external", [False, True])
def test_a_model_comes_out_as_it_went_in(tmp_path: Path, external: bool) -> None:
    model = saved(tmp_path / "a.onnx", large_model(), external=external)
    bundle = made(tmp_path, source(model, "a"))
    (variant,) = bundle.manifest.variants
    assert variant.model == "models/a.onnx"
    check_variant(bundle, variant, "always")
    inside = bundle.model_file(variant)
    before, after = weights(model), weights(inside)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    onnx.checker.check_model(str(inside))
    loaded = onnx.load(inside)
    assert [node.SerializeToString() for node in loaded.graph.node] == [
        node.SerializeToString() for node in large_model().graph.node
    ]
    assert inside.stat().st_size < SMALLEST_BYTES


def test_variants_share_the_weights_that_are_equal(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.onnx", large_model())
    proto = large_model()
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(160, np.float32), "b"))
    extra = np.ones((256, 160), np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(extra, "extra"))
    second = saved(tmp_path / "b.onnx", proto, external=True)
    bundle = made(tmp_path, source(first, "a"), source(first, "again"))
    assert len(data_files(bundle)) == 1
    bundle = add_variant(bundle.path, source(second, "b"))
    sizes = sorted(data_files(bundle).values())
    assert sizes == sorted([160 * 128 * 4, extra.nbytes])
    for variant in bundle.manifest.variants:
        check_variant(bundle, variant, "always")
    assert len(bundle.manifest.variants[2].files) == 3
    assert np.array_equal(weights(bundle.model_file(bundle.manifest.variants[2]))["extra"], extra)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_engines_open_what_was_split(tmp_path: Path, provider: str) -> None:
    model = saved(tmp_path / "a.onnx", large_model())
    target = Target(name=provider, provider=provider)
    own = source(model, "a")
    own = msgspec.structs.replace(own, variant=msgspec.structs.replace(own.variant, targets=(target,)))
    bundle = made(tmp_path, own)
    feeds = {"x": np.ones((2, 128), np.float32)}
    with load(model, provider) as plain, load(bundle.path, provider) as split:
        np.testing.assert_array_equal(plain(feeds)["y"], split(feeds)["y"])


@pytest.mark.parametrize("name", ["branching", "quantized", "image"])
def test_small_models_stay_whole(tmp_path: Path, name: str) -> None:
    bundle = made(tmp_path, source(saved(tmp_path / "a.onnx", MODELS[name]()), "a"))
    assert bundle.manifest.variants[0].model == "variants/a/a.onnx"
    assert data_files(bundle) == {}


def test_a_name_that_is_no_file_name_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model = saved(tmp_path / "a.onnx", large_model())
    bundle = made(tmp_path, source(model, "a"))
    before = sorted(bundle.folder.rglob("*"))
    for name in ("../b", "b/c", "A"):
        with pytest.raises(InvalidBundle):
            add_variant(bundle.path, source(model, name))
    assert sorted(bundle.folder.rglob("*")) == before
    assert len(open_bundle(bundle.path).manifest.variants) == 1
