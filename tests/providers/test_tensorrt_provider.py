"""TensorRT without a GPU: availability, options, shape profiles, and cache keys that cannot collide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conformance.models import LINEAR, PAIR
from tests.providers.conftest import H200, T4, FakeDriver, Install
from toolkit.errors import EngineError, InvalidInput, InvalidTarget
from toolkit.providers import cuda_available, registry, tensorrt, tensorrt_available
from toolkit.providers.base import Available, Unavailable
from toolkit.providers.onnxruntime_ import Chain
from toolkit.providers.onnxruntime_engine import OnnxRuntimeEngine
from toolkit.providers.session import Execution
from toolkit.providers.tensorrt import TensorrtEngine, engine_key, model_inputs, options, ranges_of, rule_out_tf32
from toolkit.providers.tensorrt_shapes import (
    DEFAULT_BATCH,
    DEFAULT_LENGTH,
    DEFAULT_PIXELS,
    SizeRange,
    complete_ranges,
    parse_ranges,
    profile_options,
)
from toolkit.targets import Target, shipped_targets
from toolkit.tensors import TensorSpec

TEXT = (TensorSpec("ids", "int64", ("batch", "seq")), TensorSpec("mask", "int64", ("batch", "seq")))
IMAGE = (TensorSpec("pixels", "float32", ("batch", 3, "height", "width")), TensorSpec("scale", "float32", (1,)))


def target(**chosen: object) -> Target:
    return Target(name="mine", provider="tensorrt", engine_options=chosen)  # type: ignore[arg-type]


# Sizes


def test_ranges_are_read() -> None:
    assert parse_ranges("batch=1:8:32, seq=128", "x") == {"batch": SizeRange(1, 8, 32), "seq": SizeRange(128, 128, 128)}
    assert parse_ranges("", "x") == {}


@pytest.mark.parametrize(
    "text", ["batch", "batch=", "batch=1:2", "batch=8:1:32", "batch=0:1:2", "batch=a:b:c", "=1:2:3"]
)
def test_ranges_that_make_no_sense(text: str) -> None:
    with pytest.raises(InvalidTarget, match="cannot read this range of sizes") as raised:
        parse_ranges(text, "mine")
    assert "DIM=MIN:OPT:MAX" in str(raised.value)


def test_defaults_fit_the_kind_of_dim() -> None:
    assert complete_ranges(TEXT, {}, "x") == {"batch": DEFAULT_BATCH, "seq": DEFAULT_LENGTH}
    found = complete_ranges(IMAGE, {"width": SizeRange(640, 640, 640)}, "x")
    assert found == {"batch": DEFAULT_BATCH, "height": DEFAULT_PIXELS, "width": SizeRange(640, 640, 640)}


def test_a_range_for_a_dim_the_model_does_not_have() -> None:
    with pytest.raises(InvalidTarget, match="no such dim; got sequence; expected 'seq' \\(did you mean that\\?\\)"):
        complete_ranges(TEXT, {"sequence": SizeRange(1, 1, 1)}, "mine")


def test_profiles_name_every_dynamic_input_and_no_fixed_one() -> None:
    assert profile_options(TEXT, parse_ranges("batch=1:2:4,seq=8:16:32", "x")) == {
        "trt_profile_min_shapes": "ids:1x8,mask:1x8",
        "trt_profile_opt_shapes": "ids:2x16,mask:2x16",
        "trt_profile_max_shapes": "ids:4x32,mask:4x32",
    }
    found = profile_options(IMAGE, complete_ranges(IMAGE, {}, "x"))
    assert found["trt_profile_max_shapes"] == "pixels:32x3x1024x1024"
    assert profile_options(IMAGE[1:], {}) == {}


# Options


def test_what_the_execution_provider_is_given(tmp_path: Path) -> None:
    chosen = target(trt_builder_optimization_level=5, trt_max_workspace_size=1 << 30, profile_dims="seq=8:16:32")
    folder = tmp_path / "key"
    found = options(chosen, folder, TEXT, ranges_of(chosen, TEXT))
    assert found == {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
        "trt_profile_min_shapes": "ids:1x8,mask:1x8",
        "trt_profile_opt_shapes": "ids:1x16,mask:1x16",
        "trt_profile_max_shapes": "ids:32x32,mask:32x32",
        "trt_builder_optimization_level": "5",
        "trt_max_workspace_size": str(1 << 30),
    }


def test_profiles_of_the_users_own_win(tmp_path: Path) -> None:
    own = {f"trt_profile_{name}_shapes": f"ids:{size},mask:{size}" for name, size in (("min", "1x1"), ("max", "2x2"))}
    found = options(target(**own), tmp_path, TEXT, ranges_of(target(**own), TEXT))
    assert {key: value for key, value in found.items() if "profile" in key} == own
    with pytest.raises(InvalidTarget, match="the sizes are given twice; got also trt_profile_min_shapes"):
        ranges_of(target(**own, profile_dims="seq=1"), TEXT)


def test_precision_stands_in_the_graph_and_in_no_option(tmp_path: Path) -> None:
    provider = registry.provider("tensorrt")
    for name in ("tensorrt-fp16", "tensorrt-int8"):
        found = options(shipped_targets()[name], tmp_path, (), {})
        assert not [key for key in found if "fp16" in key or "int8" in key or "bf16" in key]
    for option in ("trt_fp16_enable", "trt_int8_enable", "trt_bf16_enable", "trt_engine_cache_path", "device_id"):
        with pytest.raises(InvalidTarget, match="tensorrt has no such option"):
            provider.check_target(target(**{option: 1}))


def test_cuda_comes_second_with_tf32_off() -> None:
    chain = tensorrt.chain(target(), {"device_id": "0"})
    assert [name for name, _ in chain] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert chain[1][1]["use_tf32"] == "0"


def test_tf32_is_ruled_out_unless_the_target_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    wants = Target(name="mine", provider="tensorrt", inference_precision="tf32")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    rule_out_tf32(wants)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    rule_out_tf32(target())
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    with pytest.raises(EngineError, match="TF32 is ruled out in this process"):
        rule_out_tf32(wants)


# The cache


@pytest.fixture
def gpu(install_driver: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(FakeDriver((H200, T4)))
    monkeypatch.setattr(tensorrt, "version", lambda device: "1.31.1 with TensorRT 10.16.1")


@pytest.mark.usefixtures("gpu")
def test_every_ingredient_changes_the_key(
    tmp_path: Path, install_driver: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = LINEAR.write(tmp_path)
    keys = [engine_key(path, target())]
    assert engine_key(path, target()) == keys[0]
    keys.append(engine_key(PAIR.write(tmp_path, "other.onnx"), target()))
    keys.append(engine_key(path, target(profile_dims="batch=1:2:4")))
    keys.append(engine_key(path, target(trt_profile_min_shapes="x:1x4")))
    keys.append(engine_key(path, target(trt_builder_optimization_level=5)))
    keys.append(engine_key(path, Target(name="mine", provider="tensorrt", device="1")))
    install_driver(FakeDriver((T4,)))
    keys.append(engine_key(path, target()))
    install_driver(FakeDriver((H200, T4)))
    monkeypatch.setattr(tensorrt, "version", lambda device: "1.31.1 with TensorRT 10.16.2")
    keys.append(engine_key(path, target()))
    assert len(set(keys)) == len(keys)


@pytest.mark.usefixtures("gpu")
def test_models_with_the_same_name_and_shapes_do_not_share_engines(tmp_path: Path) -> None:
    folders = []
    for index in range(2):  # same file name, graph name, shapes; other weights
        case = (
            LINEAR
            if index == 0
            else type(LINEAR)(**{**vars(LINEAR), "weights": {**LINEAR.weights, "b": np.ones(3, np.float32)}})
        )
        place = tmp_path / str(index)
        place.mkdir()
        folders.append(tensorrt.engine_folder(case.write(place), target()))
    assert folders[0] != folders[1]
    assert folders[0].parent == folders[1].parent == tmp_path / "cache" / "tensorrt"


def test_inputs_are_noted_beside_the_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    path, folder = LINEAR.write(tmp_path), tmp_path / "cache" / "key"
    assert model_inputs(path, folder) == LINEAR.inputs
    monkeypatch.setattr(tensorrt, "inference_session", None)  # a second reading would fail
    assert model_inputs(path, folder) == LINEAR.inputs


# The engine


def test_what_is_opened_and_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening, on the CPU's provider in TensorRT's place: the chain it gets, and the sizes it then refuses."""
    pytest.importorskip("onnxruntime")
    chains: list[list[str]] = []

    def on_the_cpu(model: Path, given: Target, chain: Chain, proof: Chain) -> OnnxRuntimeEngine:
        chains.append(sorted(chain[0][1]))
        return OnnxRuntimeEngine(model, given, [("CPUExecutionProvider", {})])

    monkeypatch.setattr(tensorrt, "OnnxRuntimeEngine", on_the_cpu)
    monkeypatch.setattr(tensorrt, "version", lambda device: "1")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    provider, path, chosen = registry.provider("tensorrt"), LINEAR.write(tmp_path), target(profile_dims="batch=1:2:4")
    for opening in (provider.open_engine, provider.open_prepared):
        engine = opening(path, chosen)
        assert engine.run({"x": np.ones((4, 4), np.float32)})["y"].shape == (4, 3)
        with pytest.raises(InvalidInput, match="expected 1 to 4"):
            engine.run({"x": np.ones((5, 4), np.float32)})
        engine.close()
    assert "trt_engine_cache_path" in chains[0]
    assert "trt_profile_min_shapes" in chains[0]
    assert chains[1] == ["device_id"]  # what was built ahead is neither built nor cached again


class FakeEngine:
    inputs, outputs = TEXT, ()

    def run(self, feeds: object) -> dict[str, object]:
        return {}

    def prove(self, feeds: object) -> Execution:
        return Execution(
            "TensorrtExecutionProvider", "1", "0", 1, {"TensorrtExecutionProvider": 3}, {"as the file says": 1}
        )

    def close(self) -> None:
        pass


def test_sizes_outside_the_profile_are_refused_in_one_line() -> None:
    ranges = parse_ranges("batch=1:2:4,seq=8:16:32", "x")
    engine = TensorrtEngine(FakeEngine(), ranges, "bert.onnx")  # type: ignore[arg-type]
    engine.run({spec.name: np.ones((4, 32), np.int64) for spec in TEXT})
    with pytest.raises(InvalidInput) as raised:
        engine.run({spec.name: np.ones((4, 33), np.int64) for spec in TEXT})
    assert str(raised.value) == (
        "bert.onnx: the TensorRT engine was not built for this size of 'seq'; got 33; expected 8 to 32; "
        'set engine_options = { profile_dims = "seq=MIN:OPT:MAX" } in the target'
    )


def test_the_proof_says_what_was_built() -> None:
    engine = TensorrtEngine(FakeEngine(), {"batch": SizeRange(1, 2, 4)}, "m")  # type: ignore[arg-type]
    assert engine.prove({}).notes == (
        "strongly typed engines: each layer computes in the precision the file gives it",
        "built for batch=1:2:4",
    )


# Availability


def test_without_cuda_there_is_no_tensorrt(install_driver: Install) -> None:
    install_driver(None)
    assert registry.provider("tensorrt").probe() == registry.provider("cuda").probe()


@pytest.fixture
def bridge(tmp_path: Path) -> Path:
    """A folder with a bridge that was linked with TensorRT 10, as onnxruntime-gpu 1.31.1 has it."""
    file = tmp_path / "libonnxruntime_providers_tensorrt.so"
    file.write_bytes(b"\x7fELF\0libcublas.so.13\0libnvinfer.so.10\0libnvonnxparser.so.10\0")
    return tmp_path


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> str:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(tensorrt_available, "load_library", load)


def test_the_bridge_says_which_tensorrt_it_needs(bridge: Path, tmp_path: Path) -> None:
    assert tensorrt_available.needed_library(bridge) == ("libnvinfer.so.10", 10)
    assert tensorrt_available.needed_library(tmp_path / "elsewhere") is None


@pytest.mark.usefixtures("no_library")
def test_tensorrt_11_cannot_serve_a_bridge_for_10(bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_available, "installed_package", lambda: ("tensorrt", "11.4.0.106"))
    found = tensorrt_available.library_problem(bridge)
    assert found == Unavailable(
        "tensorrt 11.4.0.106 is installed, but this onnxruntime was built for TensorRT 10 (libnvinfer.so.10)",
        "pip install 'tensorrt<11'",
    )


@pytest.mark.usefixtures("no_library")
def test_missing_tensorrt(bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_available, "installed_package", lambda: None)
    found = tensorrt_available.library_problem(bridge)
    assert isinstance(found, Unavailable)
    assert found.reason.startswith("TensorRT 10 is missing: libnvinfer.so.10")
    assert found.remedy == "pip install 'tensorrt<11'"


def test_a_wheel_without_the_bridge(tmp_path: Path) -> None:
    found = tensorrt_available.library_problem(tmp_path)
    assert isinstance(found, Unavailable)
    assert "no TensorRT provider" in found.reason


def test_everything_there(bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wheel:
        __version__ = "1.31.1"
        __file__ = str(bridge / "__init__.py")

    capi = bridge / "capi"
    capi.mkdir()
    (bridge / "libonnxruntime_providers_tensorrt.so").rename(capi / "libonnxruntime_providers_tensorrt.so")
    monkeypatch.setattr(cuda_available, "probe", lambda device: Available("1.31.1", ("0: NVIDIA H200",)))
    monkeypatch.setattr(cuda_available, "wheel_problem", lambda name: None)
    monkeypatch.setattr(cuda_available, "opening_problem", lambda chain: None)
    monkeypatch.setattr(tensorrt_available, "import_onnxruntime", lambda: Wheel)
    monkeypatch.setattr(tensorrt_available, "load_library", lambda name: "10.16.1")
    assert tensorrt_available.probe("0") == Available("1.31.1 with TensorRT 10.16.1", ("0: NVIDIA H200",))


def test_a_library_that_loads_but_a_provider_that_does_not_open(bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_everything_there(bridge, monkeypatch)
    tensorrt_available.probe.cache_clear()
    problem = Unavailable("a trial model does not open on TensorrtExecutionProvider: nope", "remedy")
    monkeypatch.setattr(cuda_available, "opening_problem", lambda chain: problem)
    assert tensorrt_available.probe("0") == problem
