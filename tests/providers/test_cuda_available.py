"""CUDA is there when a model ran on it, and everything short of that has a reason and a remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from tests.providers.conftest import H200, FakeDriver, Install
from toolkit.errors import ProviderUnavailable
from toolkit.providers import cuda_available, registry
from toolkit.providers.base import Available, Unavailable
from toolkit.providers.cuda_available import TRIAL_INPUT, TRIAL_MODEL, TRIAL_OUTPUT
from toolkit.targets import Target


class FakeWheel(SimpleNamespace):
    """onnxruntime-gpu as far as the probe asks it."""

    def __init__(self, providers: tuple[str, ...] = (cuda_available.NAME,), says: str = "") -> None:
        super().__init__(__version__="1.31.1", cuda_version="13.0", says=says, severities=[])
        self._providers = providers

    def get_available_providers(self) -> tuple[str, ...]:
        return self._providers

    def preload_dlls(self) -> None:
        print(self.says)

    def set_default_logger_severity(self, severity: int) -> None:
        self.severities.append(severity)


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``wheel(FakeWheel(...))`` puts it in the place of the installed onnxruntime."""
    return lambda fake: monkeypatch.setattr(cuda_available, "import_onnxruntime", lambda: fake)


def reason_and_remedy(device: str = "0") -> tuple[str, str]:
    found = cuda_available.probe(device)
    assert isinstance(found, Unavailable)
    assert found.remedy
    return found.reason, found.remedy


def test_the_trial_model_is_valid_and_computes_what_is_said() -> None:
    model = onnx.load_from_string(TRIAL_MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv", "MatMul"]
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(TRIAL_MODEL, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": TRIAL_INPUT})[0], TRIAL_OUTPUT)


def test_no_driver_and_the_cpu_wheel_are_told_together(install_driver: Install, wheel: Any) -> None:
    install_driver(None)
    wheel(FakeWheel(providers=("CPUExecutionProvider",)))
    reason, remedy = reason_and_remedy()
    assert "no NVIDIA driver" in reason
    assert "build without CUDAExecutionProvider" in reason
    assert "pip install 'onnx-toolkit[gpu]'" in remedy


def test_the_gpu_wheel_without_a_driver(install_driver: Install, wheel: Any) -> None:
    install_driver(None)
    wheel(FakeWheel())
    reason, remedy = reason_and_remedy()
    assert reason == "there is no NVIDIA driver (libcuda.so.1 is missing)"
    assert "pip" not in remedy


def test_a_driver_older_than_the_wheel(install_driver: Install, wheel: Any) -> None:
    install_driver(FakeDriver((H200,), cuda=12040))
    wheel(FakeWheel())
    reason, remedy = reason_and_remedy()
    assert "supports CUDA 12.4" in reason
    assert "built for CUDA 13.0" in reason
    assert "update the driver" in remedy


def test_a_gpu_that_is_not_there(install_driver: Install, wheel: Any) -> None:
    install_driver(FakeDriver((H200,)))
    wheel(FakeWheel())
    assert "no GPU '3' here, only 0 (NVIDIA H200)" in reason_and_remedy("3")[0]
    assert "no GPU 'first' here" in reason_and_remedy("first")[0]


def test_a_missing_cuda_library_is_named(
    install_driver: Install, wheel: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    install_driver(FakeDriver((H200,)))
    wheel(FakeWheel(says="Failed to load libcublasLt.so.13: libcublasLt.so.13: cannot open shared object file"))
    reason, remedy = reason_and_remedy()
    assert "libcublasLt.so.13" in reason
    assert remedy == "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert capsys.readouterr().out == ""  # what preload_dlls prints stays off stdout


def test_missing_cudnn_is_named(install_driver: Install, wheel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(FakeDriver((H200,)))
    wheel(FakeWheel())
    monkeypatch.setattr(cuda_available, "_CUDNN", "libcudnn_that_is_not_there.so.9")
    assert "cuDNN 9 is missing" in reason_and_remedy()[0]


@pytest.fixture
def all_but_the_trial(install_driver: Install, wheel: Any, monkeypatch: pytest.MonkeyPatch) -> FakeWheel:
    install_driver(FakeDriver((H200,)))
    fake = FakeWheel()
    wheel(fake)
    monkeypatch.setattr(cuda_available, "library_problem", lambda: None)
    monkeypatch.setattr(cuda_available, "session_options", lambda *_: None)
    return fake


def open_as(monkeypatch: pytest.MonkeyPatch, session: object) -> None:
    """Let the trial open ``session``, or raise it."""

    def _open(*_: object) -> object:
        if isinstance(session, Exception):
            raise session
        return session

    monkeypatch.setattr(cuda_available, "inference_session", _open)


class FakeSession:
    def __init__(self, took: str, answer: object) -> None:
        self.took, self.answer = took, answer

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=self.took, get_nodes=lambda: [None, None])]

    def run(self, *_: object) -> list[object]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer]


def test_a_trial_that_works(all_but_the_trial: FakeWheel, monkeypatch: pytest.MonkeyPatch) -> None:
    open_as(monkeypatch, FakeSession(cuda_available.NAME, TRIAL_OUTPUT))
    assert cuda_available.probe("0") == Available("1.31.1", ("0: NVIDIA H200",))
    assert all_but_the_trial.severities == [4, 2]  # silent while it tries, then as before


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (RuntimeError("CUDA failure 700\nan illegal memory access"), "does not open"),
        (ProviderUnavailable("ONNX Runtime opened the model without CUDAExecutionProvider"), "does not open"),
        (FakeSession("CPUExecutionProvider", TRIAL_OUTPUT), "left a trial model to CPUExecutionProvider"),
        (FakeSession(cuda_available.NAME, RuntimeError("CUDNN_STATUS_NOT_INITIALIZED")), "does not run"),
        (FakeSession(cuda_available.NAME, TRIAL_OUTPUT + 1), "wrong numbers"),
    ],
    ids=["raises on opening", "opens without", "runs on the CPU", "raises on running", "answers wrong"],
)
def test_a_trial_that_fails(
    all_but_the_trial: FakeWheel, monkeypatch: pytest.MonkeyPatch, session: object, expected: str
) -> None:
    open_as(monkeypatch, session)
    reason, _ = reason_and_remedy()
    assert expected in reason
    assert "\n" not in reason
    assert all_but_the_trial.severities == [4, 2]


def test_asking_for_cuda_without_it_is_one_line_and_never_a_cpu_run(install_driver: Install, tmp_path: Any) -> None:
    install_driver(None)
    path = tmp_path / "trial.onnx"
    path.write_bytes(TRIAL_MODEL)
    for name in ("cuda", "tensorrt"):
        with pytest.raises(ProviderUnavailable) as raised:
            registry.provider(name).open(path, Target(name=name, provider=name))
        assert raised.value.exit_code == 1
        assert str(raised.value).startswith(f"{name} is not available: there is no NVIDIA driver")
        assert "\n" not in str(raised.value)
