"""Targets are found by name, path or provider; a mistake in one is one line that names the nearest word."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from toolkit.errors import FileProblem, InvalidTarget
from toolkit.providers import registry
from toolkit.targets import Target, as_json, read_target, shipped_targets


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


REQUIRED = {
    "cpu-fp32", "cpu-int8", "openvino-f32", "openvino-bf16", "openvino-int8", "openvino-throughput",
    "openvino-int8-throughput", "cuda-fp32", "cuda-tf32", "cuda-fp16", "tensorrt-fp16", "tensorrt-int8",
    "torch-eager", "torch-compile",
}  # fmt: skip


def test_the_shipped_targets() -> None:
    assert set(shipped_targets()) >= REQUIRED
    assert list(shipped_targets()) == sorted(shipped_targets())


@pytest.mark.parametrize("name", sorted(shipped_targets()))
def test_a_shipped_target_is_one_its_provider_accepts(name: str) -> None:
    found = registry.target(name)
    assert found.name == name
    assert found.provider in registry.NAMES
    assert name.startswith(found.provider)
    assert 10 < len(found.description) <= 80


def test_no_shipped_target_lets_an_engine_round_in_secret() -> None:
    rounding = {name: target.inference_precision for name, target in shipped_targets().items()}
    assert {name for name, value in rounding.items() if value} == {"openvino-bf16", "cuda-tf32"}


def test_a_file_of_the_users(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'provider = "cpu"\nthreads = 2\nprecisions = ["int8"]\n'
        '[engine_options]\n"session.set_denormal_as_zero" = true\n',
    )
    assert registry.target(str(path)) == Target(
        name="mine", provider="cpu", threads=2, precisions=("int8",),
        engine_options={"session.set_denormal_as_zero": True},
    )  # fmt: skip


def test_a_file_may_use_the_names_of_onnx_runtime(tmp_path: Path) -> None:
    assert read_target(write(tmp_path, 'provider = "CUDAExecutionProvider"')).provider == "cuda"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('provider = "cpu"\nthread = 2', "unknown key; got thread; expected 'threads' (did you mean that?)"),
        ('provider = "cpu"\nThreads = 2', "'threads' (did you mean that?)"),
        ('provider = "cpu"\nprecisions = ["flaot32"]', "unknown precisions; got 'flaot32'; expected 'float32'"),
        ('provider = "cpu"\nprecisions = ["fp32"]', "unknown precisions; got 'fp32'"),
        ('provider = "openvino"\ninference_precision = "bf16"', "unknown inference_precision; got 'bf16'; expected"),
        ('provider = "openvino"\nmode = "throughputs"', "'throughput' (did you mean that?)"),
        ('provider = "cpu"\nthreads = "two"', "a value does not fit; got Expected `int`, got `str` - at `$.threads`"),
        ('provider = "cpu"\nthreads = -1', "threads and streams are 0 or more"),
        ('provider = "cpu"\nprecisions = "int8"', "a value does not fit; got Expected `array`"),
        ('provider = "cpu"\nengine_options = 3', "a value does not fit"),
        ('provider = "cpu"\n[engine_options]\nx = [1]', "a value does not fit"),
        ("threads = 2", "missing required field `provider`"),
        ("provider = 3", "a value does not fit"),
        ('provider = "cpu', "not a TOML file"),
        ("\xff\xfe", "not a TOML file"),
    ],
)
def test_a_file_with_a_mistake(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidTarget) as raised:
        read_target(path)
    assert expected in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('provider = "opnvino"', "unknown provider; got 'opnvino'; expected 'openvino' (did you mean that?)"),
        ('provider = "cpu"\nprecisions = ["bfloat16"]', "cpu runs no bfloat16 files"),
        ('provider = "cpu"\ninference_precision = "bfloat16"', "cpu cannot compute in bfloat16"),
        ('provider = "openvino"\n[engine_options]\nCACHE_DIRS = "x"', "'CACHE_DIR' (did you mean that?)"),
        (
            'provider = "cpu"\n[engine_options]\ngraph_optimization_level = "ORT_ENABLE_EXTENDET"',
            "'ORT_ENABLE_EXTENDED' (did you mean that?)",
        ),
        ('provider = "cpu"\n[engine_options]\nenable_mem_pattern = "yes"', "a value of type bool"),
    ],
)
def test_a_file_that_its_provider_refuses(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InvalidTarget) as raised:
        registry.target(str(write(tmp_path, text)))
    assert expected in str(raised.value)
    assert "mine" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "provider", "device"),
    [
        ("cpu", "cpu", ""),
        ("cuda:1", "cuda", "1"),
        ("openvino:GPU.1", "openvino", "GPU.1"),
        ("CUDAExecutionProvider", "cuda", ""),
        ("TensorrtExecutionProvider:1", "tensorrt", "1"),
    ],
)
def test_a_provider_is_a_target(text: str, provider: str, device: str) -> None:
    found = registry.target(text)
    assert (found.provider, found.device, found.precisions) == (provider, device, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu-fp23", "'cpu-fp32' (did you mean that?)"),
        ("opnvino", "'openvino' (did you mean that?)"),
        (
            "OpenVINOExecutionProvider",
            "another engine build; got OpenVINOExecutionProvider; expected openvino (native)",
        ),
        ("", "unknown target; got ''"),
        ("../cpu-fp32", "unknown target"),
    ],
)
def test_an_unknown_target(text: str, expected: str) -> None:
    with pytest.raises(InvalidTarget) as raised:
        registry.target(text)
    assert expected in str(raised.value)


def test_a_missing_target_file() -> None:
    with pytest.raises(FileProblem, match="no such target file"):
        registry.target("nowhere.toml")


def test_all_means_every_shipped_target_once() -> None:
    assert registry.targets(("all",)) == tuple(shipped_targets().values())
    assert len(registry.targets(("all", "cpu-fp32", "cpu"))) == len(shipped_targets()) + 1


def test_a_target_goes_through_json_unchanged() -> None:
    for target in shipped_targets().values():
        assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(as_json(target))), Target) == target


def test_what_a_target_allows() -> None:
    assert Target(provider="cpu").allows("int8")
    assert not Target(provider="cpu", precisions=("float32",)).allows("int8")
