from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.errors import InvalidTarget, ProviderUnavailable, UsageError
from toolkit.providers import registry
from toolkit.providers.base import Available, Unavailable
from toolkit.providers.torch_ import TorchProvider, open_module_session, to_array, to_tensor
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

INPUTS = (TensorSpec("x", "float32", ("batch", 3)),)
OUTPUTS = (TensorSpec("y", "float32", ("batch", 2)),)
FEEDS = {"x": np.ones((4, 3), np.float32)}


def target(**options: str | bool) -> Target:
    return Target(name="torch", provider="torch", device="cpu", threads=1, engine_options=options)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


def test_eager_runs_and_proves_what_ran() -> None:
    with open_module_session(module(), INPUTS, OUTPUTS, target()) as session:
        answer = session(FEEDS)["y"]
        assert answer.shape == (4, 2) and answer.dtype == np.float32
        proof = session.execution
    assert (proof.provider, proof.device, proof.threads, proof.notes) == ("PyTorch", "cpu", 1, ("eager",))
    assert proof.nodes_by_provider == {"PyTorch": 3} and proof.executed_precision == {"float32": 2}
    assert proof.version == torch.__version__


def test_float64_is_a_dtype_of_the_target() -> None:
    with (
        open_module_session(module(), INPUTS, OUTPUTS) as plain,
        open_module_session(module(), INPUTS, OUTPUTS, target(dtype="float64")) as wide,
    ):
        assert wide(FEEDS)["y"].dtype == np.float64 and wide.outputs[0].dtype == "float64"
        assert wide.execution.executed_precision == {"float64": 2}
        np.testing.assert_allclose(plain(FEEDS)["y"], wide(FEEDS)["y"], rtol=1e-5)


def test_half_precision_proves_itself() -> None:
    with open_module_session(module(), INPUTS, OUTPUTS, target(dtype="bfloat16")) as session:
        assert session(FEEDS)["y"].dtype.name == "bfloat16"
        assert session.execution.executed_precision == {"bfloat16": 2}


def test_compiled_modules_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compile(call: nn.Module, **options: object) -> nn.Module:
        calls.append(options)
        return call

    monkeypatch.setattr(torch, "compile", compile)  # a real one takes a C++ compiler and half a minute
    with open_module_session(module(), INPUTS, OUTPUTS, target(compile=True)) as session:
        assert session(FEEDS)["y"].shape == (4, 2)
        assert session.execution.notes == ("torch.compile",)
    assert calls == [{"dynamic": True, "mode": None}]


def test_structures_are_flattened_in_order() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"a": x + 1, "b": (x + 2, None)}

    outputs = (TensorSpec("a", "float32", None), TensorSpec("b", "float32", None))
    with open_module_session(Two(), INPUTS, outputs, target()) as session:
        assert [array.max() for array in session(FEEDS).values()] == [2.0, 3.0]


def test_answers_belong_to_the_caller() -> None:
    with open_module_session(nn.Identity(), INPUTS, OUTPUTS, target()) as session:
        feeds = {"x": np.ones((1, 3), np.float32)}
        answer = session(feeds)["y"]
        answer[:] = 5
        assert feeds["x"].max() == 1


def test_programs_open_when_they_are_trusted(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    shapes = ({0: torch.export.Dim("n", min=1, max=64)},)
    torch.export.save(torch.export.export(module(), (torch.ones(2, 3),), dynamic_shapes=shapes), path)
    provider = TorchProvider()
    with pytest.raises(UsageError, match=r"a \.pt2 file is code"):
        provider.open(path, target())
    with provider.open(path, target(trust=True)) as session:
        assert session({"input": FEEDS["x"]})["output"].shape == (4, 2)
        assert [spec.name for spec in session.inputs] == ["input"]
    with pytest.raises(UsageError, match="torch opens no ONNX file"):
        provider.open("model.onnx", target())


def test_devices_and_options_that_are_not_there() -> None:
    provider = TorchProvider()
    assert isinstance(provider.probe(), Available) and isinstance(provider.probe("cpu"), Available)
    missing = provider.probe("cuda:7")
    assert isinstance(missing, Unavailable) and "torch finds no device cuda:7" in missing.reason
    with pytest.raises(ProviderUnavailable):
        provider.require(Target(name="t", provider="torch", device="cuda:7"))
    with pytest.raises(InvalidTarget, match="compile"):
        provider.require(target(complie=True))
    with pytest.raises(InvalidTarget, match="unknown dtype"):
        open_module_session(module(), INPUTS, OUTPUTS, target(dtype="float8"))


def test_auto_never_chooses_torch() -> None:
    assert "torch" not in registry.automatic()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool"])
def test_tensors_and_arrays_turn_into_each_other(dtype: str) -> None:
    tensor = torch.tensor([[0, 1], [2, 3]]).to(getattr(torch, dtype))
    array = to_array(tensor)
    assert array.dtype.name == dtype
    assert torch.equal(to_tensor(array), tensor)
