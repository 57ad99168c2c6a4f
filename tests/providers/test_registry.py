"""What every provider has to declare, whether or not its engine is here."""

from __future__ import annotations

from pathlib import Path

import pytest

import toolkit.installed as installed
import toolkit.providers.onnxruntime_ as onnxruntime_
from toolkit.errors import InvalidTarget
from toolkit.providers import registry
from toolkit.providers.base import Available, Unavailable
from toolkit.providers.openvino_ import OPTIONS
from toolkit.targets import PRECISIONS


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_provider_declares_itself(name: str) -> None:
    provider = registry.provider(name)
    assert provider.name == name
    assert provider is registry.provider(name)
    assert set(provider.precisions) <= set(PRECISIONS)
    assert len(set(provider.known_options())) == len(provider.known_options())
    assert set(provider.option_values) <= set(provider.known_options())
    assert provider.extra == "test" or provider.extra in installed.extras()
    if provider.placement_rules is not None:
        assert (Path(registry.__file__).parent / provider.placement_rules).is_file()


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_probe_answers_and_never_raises(name: str) -> None:
    for device in ("", "0", "nonsense", "GPU.7"):
        answer = registry.provider(name).probe(device)
        if isinstance(answer, Unavailable):
            assert answer.reason
            assert answer.remedy
            assert "\n" not in answer.reason + answer.remedy
        else:
            assert isinstance(answer, Available)
            assert answer.version


def test_auto_prefers_the_fastest_hardware_and_never_torch_or_null() -> None:
    assert registry.automatic() == ("tensorrt", "cuda", "openvino", "cpu")


def test_an_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(
        InvalidTarget, match="unknown provider; got 'tensort'; expected 'tensorrt' \\(did you mean that"
    ):
        registry.provider("tensort")
    assert registry.provider("CPUExecutionProvider").name == "cpu"


def test_the_session_keys_are_ones_that_this_onnx_runtime_knows() -> None:
    """A key that ONNX Runtime does not know is ignored in silence, so a slip in our table would be too."""
    runtime = pytest.importorskip("onnxruntime")
    libraries = (Path(runtime.__file__).parent / "capi").glob("*pybind11_state*")
    content = b"".join(path.read_bytes() for path in libraries)
    elsewhere = {"mlas.enable_gemm_fastmath_arm64_bfloat16"}  # compiled for ARM only
    assert [key for key in onnxruntime_.SESSION_KEYS if key.encode() not in content and key not in elsewhere] == []


def test_the_session_attributes_and_their_values_exist() -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    for name, values in onnxruntime_.SESSION_VALUES.items():
        assert hasattr(options, name)
        if isinstance(values, tuple):
            members = runtime.ExecutionMode if name == "execution_mode" else runtime.GraphOptimizationLevel
            assert set(values) == set(members.__members__)


def test_the_openvino_options_are_ones_that_it_knows() -> None:
    openvino = pytest.importorskip("openvino")
    known = set(openvino.Core().get_property("CPU", "SUPPORTED_PROPERTIES"))
    core_level = {"CACHE_DIR", "CACHE_MODE", "COMPILATION_NUM_THREADS", "ENABLE_MMAP"}
    assert set(OPTIONS) - core_level <= known
