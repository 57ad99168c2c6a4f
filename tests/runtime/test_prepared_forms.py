"""Forms prepared ahead of time: used where they hold, else passed over with a reason, and never run on trust."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

import toolkit
from tests.bundle.seeds import make_bundle
from toolkit.bundle.archive import pack
from toolkit.bundle.manifest import PreparedForm, decode, encode
from toolkit.bundle.reader import open_bundle
from toolkit.errors import InvalidBundle, UsageError
from toolkit.files import cache_folder
from toolkit.providers import registry
from toolkit.providers.base import Available
from toolkit.runtime.preparing import prepare_bundle
from toolkit.targets import Target
from toolkit.tensors import Array

PROVIDERS = [
    pytest.param(
        name, marks=pytest.mark.skipif(not isinstance(registry.provider(name).probe(), Available), reason=name)
    )
    for name in ("cpu", "openvino")
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle("large", tmp_path)


FEEDS = {"x": np.random.default_rng(5).standard_normal((3, 128)).astype(np.float32)}


def answer(path: Path, provider: str, **options: bool) -> tuple[Array, tuple[str, ...]]:
    with toolkit.load(path, provider, **options) as session:  # type: ignore[arg-type]
        return session(FEEDS)["y"], session.notes


def edited(folder: Path, **changes: object) -> None:
    """Change every prepared form in the manifest."""
    manifest = open_bundle(folder).manifest
    (variant,) = manifest.variants
    forms = tuple(msgspec.structs.replace(form, **changes) for form in variant.prepared)
    changed = msgspec.structs.replace(variant, prepared=forms)
    (folder / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, variants=(changed,))))


def rebuilt() -> list[Path]:
    """Forms in the user's cache."""
    found = cache_folder("prepared")
    return sorted(found.iterdir()) if found.is_dir() else []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_prepared_bundle_opens_by_itself_from_its_form_and_answers_the_same(folder: Path, provider: str) -> None:
    plain, notes = answer(folder, provider)
    assert notes == ()
    _, made = prepare_bundle(folder, [provider])
    assert [item.target for item in made if item.size_bytes] == [provider]
    quick, notes = answer(folder, provider)
    assert notes == (f"opened the form prepared for {provider}",)
    np.testing.assert_array_equal(quick, plain)
    assert rebuilt() == []
    assert answer(folder, provider, prepared=False)[1] == ()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_form_for_another_version_is_passed_over_and_one_is_made_here(folder: Path, provider: str) -> None:
    prepare_bundle(folder, [provider])
    (form,) = open_bundle(folder).manifest.variants[0].prepared
    engine = "onnxruntime" if provider == "cpu" else "openvino"
    edited(folder, valid_for={**form.valid_for, engine: "0.1"})
    plain, _ = answer(folder, provider, prepared=False)
    quick, notes = answer(folder, provider)
    assert notes[0].startswith(f"the prepared form for {provider} is not used: it is for {engine} 0.1, here it is ")
    np.testing.assert_array_equal(quick, plain)
    assert len(rebuilt()) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": "0" * 64}, "other files or for other settings"),
        ({"valid_for": {}}, "here it is"),
        ({"valid_for": {"CPU features": "avx9"}}, "here it is"),
    ],
)
def test_what_a_form_is_valid_for_is_compared(folder: Path, changes: dict[str, object], reason: str) -> None:
    prepare_bundle(folder, ["cpu"])
    edited(folder, **changes)
    with toolkit.load(folder, "cpu") as session:
        assert reason in session.notes[0]
        assert any(reason in note for note in session.execution.notes)


def test_a_form_for_other_settings_of_the_target_is_passed_over(folder: Path) -> None:
    prepare_bundle(folder, ["cpu"])
    with toolkit.load(folder, Target(name="mine", provider="cpu", threads=2)) as session:
        assert "other settings" in session.notes[0]


def test_machine_code_is_run_only_where_it_was_made_or_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(registry.provider("openvino").probe(), Available):
        pytest.skip("openvino")
    prepare_bundle(folder, ["openvino"])
    opened: list[Path] = []
    engine = type(registry.provider("openvino"))
    real = engine.open_prepared
    monkeypatch.setattr(
        engine, "open_prepared", lambda self, path, target: opened.append(path) or real(self, path, target)
    )
    # Another user or machine: the same bundle, without the stamp that says it was made here.
    shutil.rmtree(cache_folder("built"))
    edited(folder, native=False)  # what the manifest says of itself does not count
    _, notes = answer(folder, "openvino")
    assert "machine code that was not made on this machine" in notes[0]
    assert not [path for path in opened if path.is_relative_to(folder)]
    assert answer(folder, "openvino", trust_prepared=True)[1] == ("opened the form prepared for openvino",)
    assert [path for path in opened if path.is_relative_to(folder)]


def test_a_changed_form_is_refused(folder: Path) -> None:
    prepare_bundle(folder, ["cpu"])
    (form,) = open_bundle(folder).manifest.variants[0].prepared
    file = folder / form.model
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(InvalidBundle, match="changed after"):
        toolkit.load(folder, "cpu")


def test_a_form_that_the_engine_does_not_take_is_noted_and_the_portable_file_opened(folder: Path) -> None:
    if not isinstance(registry.provider("openvino").probe(), Available):
        pytest.skip("openvino")
    prepare_bundle(folder, ["openvino"])
    (form,) = open_bundle(folder).manifest.variants[0].prepared
    file = folder / form.model
    file.write_bytes(b"not a blob at all")
    from toolkit.bundle.writer import records

    edited(folder, files=records(folder, [file]))
    quick, notes = answer(folder, "openvino", trust_prepared=True)
    assert notes[0].startswith("the prepared form for openvino is not used: ")
    np.testing.assert_array_equal(quick, answer(folder, "openvino", prepared=False)[0])


def test_preparing_twice_gives_the_same_files_and_keeps_other_machines_forms(folder: Path) -> None:
    prepare_bundle(folder, ["cpu"])
    first = decode((folder / "manifest.json").read_bytes(), folder).variants[0].prepared[0]
    foreign = msgspec.structs.replace(first, valid_for={**first.valid_for, "CPU": "another"})
    manifest = open_bundle(folder).manifest
    variant = msgspec.structs.replace(manifest.variants[0], prepared=(foreign, first))
    (folder / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, variants=(variant,))))
    bundle, _ = prepare_bundle(folder, ["cpu"])
    found = bundle.manifest.variants[0].prepared
    assert [form.valid_for["CPU"] for form in found] == ["another", first.valid_for["CPU"]]
    assert found[1].model == first.model
    assert answer(folder, "cpu")[1][-1] == "opened the form prepared for cpu"


def test_a_packed_bundle_brings_its_forms(folder: Path, tmp_path: Path) -> None:
    prepare_bundle(folder)
    pack(folder, tmp_path / "packed.zip")
    assert answer(tmp_path / "packed.zip", "cpu")[1] == ("opened the form prepared for cpu",)
    with pytest.raises(UsageError, match="packed bundle is not changed"):
        prepare_bundle(tmp_path / "packed.zip")


def test_an_unknown_target_names_those_that_the_bundle_has(folder: Path) -> None:
    with pytest.raises(UsageError, match="no variant.*got cuda; cpu, openvino|no variant.*got cuda"):
        prepare_bundle(folder, ["cuda"])


def test_a_target_that_is_not_here_is_said_and_skipped(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    targets = (*manifest.variants[0].targets, Target(name="tensorrt", provider="tensorrt"))
    variant = msgspec.structs.replace(manifest.variants[0], targets=targets)
    (folder / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, variants=(variant,))))
    if isinstance(registry.provider("tensorrt").probe(), Available):
        pytest.skip("TensorRT is here")
    _, made = prepare_bundle(folder, ["tensorrt"])
    assert made[0].size_bytes == 0
    assert made[0].reason


def test_a_variant_that_an_engine_cannot_run_is_said_and_the_others_are_prepared(tmp_path: Path) -> None:
    if not isinstance(registry.provider("openvino").probe(), Available):
        pytest.skip("openvino")
    folder = make_bundle("branching", tmp_path)  # OpenVINO converts no functions in branches
    _, made = prepare_bundle(folder)
    assert [(item.target, item.size_bytes > 0) for item in made] == [("cpu", True), ("openvino", False)]
    assert "cannot convert" in made[1].reason
    assert not list((folder / "prepared").rglob(".prepare.*"))


def test_engines_of_a_gpu_are_keyed_to_card_driver_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.providers import cuda, tensorrt
    from toolkit.providers.nvidia import Driver, Gpu

    def facts(**changes: str) -> dict[str, str]:
        gpu = Gpu(changes.get("name", "A"), changes.get("compute", "9.0"), 80 << 30, "uuid")
        monkeypatch.setattr(cuda, "driver", lambda: Driver((13, 0), (gpu,)))
        monkeypatch.setattr(cuda, "kernel_module", lambda: changes.get("driver", "580.1"))
        monkeypatch.setattr(tensorrt, "version", lambda device: changes.get("version", "1 10"))
        return registry.provider("tensorrt").prepared_facts(Target(provider="tensorrt"))

    plain = facts()
    for change in ({"name": "B"}, {"compute": "8.0"}, {"driver": "590.2"}, {"version": "1 11"}):
        assert facts(**change) != plain
    assert registry.provider("tensorrt").native_forms


def test_an_engine_in_a_portable_file_is_not_run(tmp_path: Path) -> None:
    """An EPContext node is a TensorRT engine in an ONNX file: the same machine code by another door."""
    import onnx
    from onnx import TensorProto, helper

    from toolkit.errors import InvalidModel

    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context=b"\0" * 64)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(InvalidModel, match="machine code.*EPContext"):
        toolkit.load(tmp_path / "m.onnx", "cpu")


def test_the_manifest_says_what_a_form_is_valid_for(folder: Path) -> None:
    prepare_bundle(folder, ["cpu"])
    plain = json.loads((folder / "manifest.json").read_text())["variants"][0]["prepared"][0]
    assert set(plain["valid_for"]) == {"onnxruntime", "architecture", "CPU", "CPU features"}
    assert plain["native"] is False
    assert set(plain) == set(PreparedForm.__struct_fields__)
