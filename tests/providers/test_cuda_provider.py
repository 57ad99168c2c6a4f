"""How a target becomes options of the CUDA execution provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.models import LINEAR
from tests.providers.conftest import H200, T4, FakeDriver, Install
from toolkit.errors import InvalidTarget
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.providers.cuda import chains, options
from toolkit.targets import Target, shipped_targets

CUDA = registry.provider("cuda")


def target(**fields: object) -> Target:
    return Target(name="mine", provider="cuda", **fields)  # type: ignore[arg-type]


def test_tf32_is_off_unless_the_target_names_it() -> None:
    assert options(target())["use_tf32"] == "0"
    assert options(target(inference_precision="tf32"))["use_tf32"] == "1"
    assert options(shipped_targets()["cuda-fp32"])["use_tf32"] == "0"
    assert options(shipped_targets()["cuda-tf32"])["use_tf32"] == "1"


def test_the_device_is_the_targets() -> None:
    assert options(target())["device_id"] == "0"
    assert options(registry.target("cuda:1"))["device_id"] == "1"


def test_options_reach_the_execution_provider_as_text() -> None:
    chosen = options(
        target(
            engine_options={
                "gpu_mem_limit": 2_000_000_000,
                "arena_extend_strategy": "kSameAsRequested",
                "cudnn_conv_algo_search": "HEURISTIC",
                "enable_cuda_graph": True,
                "graph_optimization_level": "ORT_ENABLE_BASIC",  # the session's, not the provider's
            }
        )
    )
    assert chosen == {
        "device_id": "0",
        "use_tf32": "0",
        "gpu_mem_limit": "2000000000",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1",
    }


def test_the_instrumented_run_has_no_cuda_graph() -> None:
    run, proof = chains(target(engine_options={"enable_cuda_graph": True}))
    assert run[0][1]["enable_cuda_graph"] == "1"
    assert "enable_cuda_graph" not in proof[0][1]
    assert [name for name, _ in run] == [name for name, _ in proof] == ["CUDAExecutionProvider"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"arena_extend_strategy": "kSameAsRequest"}, "'kSameAsRequested' (did you mean that?)"),
        ({"cudnn_conv_algo_search": "exhaustive"}, "'EXHAUSTIVE' (did you mean that?)"),
        ({"gpu_mem_limit": "2GB"}, "a value of type int"),
        ({"enable_cuda_graph": 1}, "a value of type bool"),
        ({"enable_cuda_graphs": True}, "'enable_cuda_graph' (did you mean that?)"),
        ({"use_tf32": True}, "cuda has no such option"),
        ({"device_id": 1}, "cuda has no such option"),
    ],
)
def test_a_wrong_option_is_refused_before_the_gpu_is_touched(chosen: dict[str, object], expected: str) -> None:
    with pytest.raises(InvalidTarget) as raised:
        CUDA.check_target(target(engine_options=chosen))
    assert expected in str(raised.value)
    assert raised.value.exit_code == 2


def test_tf32_on_a_gpu_without_it(install_driver: Install) -> None:
    install_driver(FakeDriver((H200, T4)))
    assert CUDA.missing(target(inference_precision="tf32", device="0")) is None
    found = CUDA.missing(target(inference_precision="tf32", device="1"))
    assert isinstance(found, Unavailable)
    assert "no TF32" in found.reason
    assert CUDA.missing(target(device="1")) is None


def test_tf32_in_a_process_that_has_it_ruled_out(install_driver: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(FakeDriver((H200,)))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = CUDA.missing(target(inference_precision="tf32"))
    assert isinstance(found, Unavailable)
    assert "NVIDIA_TF32_OVERRIDE" in found.reason


def test_the_key_of_a_prepared_form_knows_the_gpu(install_driver: Install, tmp_path: Path) -> None:
    path = LINEAR.write(tmp_path)
    keys = set()
    for driver in (FakeDriver((H200, T4)), FakeDriver((T4, H200)), FakeDriver((T4,))):
        install_driver(driver)
        keys.add(CUDA.prepared_key(path, target()))
    assert len(keys) == 2  # the same card at index 0 twice
