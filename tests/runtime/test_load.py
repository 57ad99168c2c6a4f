"""``toolkit.load``: strict about providers, honest about fallbacks, the same for bundles and bare files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import toolkit
from toolkit.bundle.manifest import Fingerprint, Manifest, Measurement, Variant
from toolkit.bundle.writer import VariantSource, create_bundle
from toolkit.errors import FileProblem, InvalidBundle, InvalidTarget, NotApplicable, ProviderUnavailable, UsageError
from toolkit.providers import registry
from toolkit.providers.base import Available, Unavailable
from toolkit.runtime.fingerprint import here
from toolkit.runtime.loader import FallbackWarning
from toolkit.runtime.selection import candidates
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

INPUT = TensorSpec("x", "float32", ("batch", 4))
OUTPUT = TensorSpec("y", "float32", ("batch", 4))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_scaled(tmp_path / "double.onnx", 2.0)


def write_scaled(path: Path, factor: float) -> Path:
    """A model that multiplies its input by ``factor``."""
    tensor = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [tensor],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def variant(
    name: str, model: Path, *targets: Target, p50_ns: float | None = None, taken: Fingerprint | None = None
) -> VariantSource:
    """A variant, measured on hardware like this unless ``taken`` says where."""
    measured = ()
    if p50_ns is not None:
        taken = here(targets[0]) if taken is None else taken
        measured = (Measurement(targets[0].name, targets[0].provider, p50_ns, fingerprint=taken),)
    found = Variant(name=name, model=model.name, precision="float32", targets=targets, files={}, measurements=measured)
    return VariantSource(found, model)


def bundle(path: Path, *variants: VariantSource) -> Path:
    manifest = Manifest(name="scaled", inputs=(INPUT,), outputs=(OUTPUT,), labels=("a", "b", "c", "d"))
    create_bundle(path, manifest, variants)
    return path


def target(provider: str) -> Target:
    return Target(name=provider, provider=provider)


ONES = {"x": np.ones((2, 4), np.float32)}


def test_a_bare_file_runs_on_the_provider_asked_for(model: Path) -> None:
    for provider in ("cpu", "openvino", "CPUExecutionProvider"):
        with toolkit.load(model, provider) as session:
            np.testing.assert_array_equal(session(ONES)["y"], 2 * ONES["x"])
            assert session.execution.nodes_by_provider


def test_auto_takes_the_first_available_in_the_stated_order(model: Path) -> None:
    first = next(name for name in registry.automatic() if isinstance(registry.provider(name).probe(), Available))
    with toolkit.load(model) as session:
        assert session.provider == first


def test_auto_takes_what_the_bundle_measured_fastest(tmp_path: Path, model: Path) -> None:
    slow, fast = target("openvino"), target("cpu")
    path = bundle(tmp_path / "m.bundle", variant("a", model, slow, p50_ns=2e6), variant("b", model, fast, p50_ns=1e6))
    with toolkit.load(path) as session:
        assert session.provider == "cpu"


@pytest.mark.parametrize("first", ["cpu", "openvino"])
def test_without_measurements_auto_takes_what_the_bundle_names_first(tmp_path: Path, model: Path, first: str) -> None:
    second = "openvino" if first == "cpu" else "cpu"
    one = bundle(tmp_path / "one.bundle", variant("a", model, target(first), target(second)))
    two = bundle(tmp_path / "two.bundle", variant("b", model, target(first)), variant("a", model, target(second)))
    for path in (one, two):
        with toolkit.load(path) as session:
            assert session.provider == first


def test_a_measured_provider_comes_before_one_that_the_bundle_names_first(tmp_path: Path, model: Path) -> None:
    path = bundle(
        tmp_path / "m.bundle", variant("a", model, target("openvino")), variant("b", model, target("cpu"), p50_ns=1e6)
    )
    with toolkit.load(path) as session:
        assert session.provider == "cpu"


def test_the_fastest_variant_of_a_provider_is_taken(tmp_path: Path, model: Path) -> None:
    other = write_scaled(tmp_path / "triple.onnx", 3.0)
    path = bundle(
        tmp_path / "m.bundle",
        variant("a", model, target("cpu"), p50_ns=2e6),
        variant("b", other, target("cpu"), p50_ns=1e6),
    )
    with toolkit.load(path, "cpu") as session:
        np.testing.assert_array_equal(session(ONES)["y"], 3 * ONES["x"])


def test_what_was_measured_on_other_hardware_says_nothing_here(tmp_path: Path, model: Path) -> None:
    other = write_scaled(tmp_path / "triple.onnx", 3.0)
    elsewhere = msgspec.structs.replace(here(target("cpu")), cpu="another CPU")
    for place, factor in ((elsewhere, 2), (here(target("cpu")), 3)):
        path = bundle(
            tmp_path / f"{factor}.bundle",
            variant("a", model, target("cpu")),
            variant("b", other, target("cpu"), p50_ns=1e6, taken=place),
        )
        with toolkit.load(path, "cpu") as session:
            np.testing.assert_array_equal(session(ONES)["y"], factor * ONES["x"])


def test_a_bundle_gives_names_of_dims_and_labels(tmp_path: Path, model: Path) -> None:
    path = bundle(tmp_path / "m.bundle", variant("a", model, target("openvino")))
    with toolkit.load(path) as session:
        assert session.inputs == (INPUT,)
        assert session.labels == ("a", "b", "c", "d")


def test_a_bundle_without_a_variant_for_the_provider_says_what_it_has(tmp_path: Path, model: Path) -> None:
    path = bundle(tmp_path / "m.bundle", variant("a", model, target("openvino")))
    with pytest.raises(NotApplicable, match="no variant.*openvino"):
        toolkit.load(path, "cpu")


def test_a_missing_provider_is_an_error_with_a_remedy_and_never_a_cpu_run(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = registry.provider("openvino")
    monkeypatch.setattr(gone, "probe", lambda device="": Unavailable("no driver", "install one"))
    with pytest.raises(ProviderUnavailable, match="no driver.*install one"):
        toolkit.load(model, "openvino")


def test_a_fallback_is_taken_with_a_warning_and_noted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = registry.provider("openvino")
    monkeypatch.setattr(gone, "probe", lambda device="": Unavailable("no driver", "install one"))
    with pytest.warns(FallbackWarning, match="no driver"), toolkit.load(model, "openvino", fallback=["cpu"]) as session:
        assert session.provider == "cpu"
        assert any("no driver" in note for note in session.execution.notes)


def test_a_fallback_does_not_hide_a_broken_bundle(tmp_path: Path, model: Path) -> None:
    path = bundle(tmp_path / "m.bundle", variant("a", model, target("openvino"), target("cpu")))
    (path / "variants" / "a" / "double.onnx").write_bytes(b"x" * (path / "variants/a/double.onnx").stat().st_size)
    with pytest.raises(InvalidBundle, match="changed after"):
        toolkit.load(path, "openvino", fallback=["cpu"])


@pytest.mark.parametrize("name", ["OpenVINOExecutionProvider", "opnvino", "cpu-fp23"])
def test_an_unknown_provider_names_the_nearest(model: Path, name: str) -> None:
    with pytest.raises(InvalidTarget):
        toolkit.load(model, name)


def test_missing_files_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "no.onnx", tmp_path / "no.bundle"):
        with pytest.raises(FileProblem):
            toolkit.load(path)
    with pytest.raises(FileProblem, match="directory"):
        toolkit.load(tmp_path)


def test_the_candidates_are_in_the_order_asked_for(model: Path) -> None:
    found = candidates("cpu", ["openvino", "cpu"], None)
    assert [choice.target.provider for choice in found] == ["cpu", "openvino"]


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_prepared_form_is_made_once_and_answers_the_same(
    tmp_path: Path, model: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    engine = type(registry.provider(provider))
    real = engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda self, *args: made.append(args[0]) or real(self, *args))
    for _ in range(2):
        with toolkit.load(model, provider, prepared=True) as session:
            np.testing.assert_array_equal(session(ONES)["y"], 2 * ONES["x"])
            assert [spec.name for spec in session.outputs] == ["y"]
    assert len(made) == 1
    write_scaled(model, 5.0)
    with toolkit.load(model, provider, prepared=True) as session:
        np.testing.assert_array_equal(session(ONES)["y"], 5 * ONES["x"])
    assert len(made) == 2


def test_a_session_says_what_it_has_no_preprocessing_for(model: Path) -> None:
    with toolkit.load(model, "cpu") as session, pytest.raises(UsageError, match="no preprocessing"):
        session.preprocess({"image": np.zeros(1)})


def test_loading_imports_no_torch_onnx_click_or_rich(tmp_path: Path, model: Path) -> None:
    path = bundle(tmp_path / "m.bundle", variant("a", model, target("cpu")))
    script = (
        "import sys, numpy, toolkit\n"
        f"session = toolkit.load({str(path)!r}, 'cpu')\n"
        "session({'x': numpy.ones((1, 4), 'float32')})\n"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxscript', 'click', 'rich', 'openvino', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
