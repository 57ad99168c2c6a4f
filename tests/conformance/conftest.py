"""Every provider that exists, opened in its own way; those that are not here are skipped with their reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.models import Case
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.providers.session import Session
from toolkit.targets import Target

ONNX_PROVIDERS = tuple(name for name in ("cpu", "cuda", "tensorrt", "openvino") if registry.provider(name).accepts_onnx)
Open = Callable[..., Session]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def _there(name: str) -> str:
    found = registry.provider(name).probe()
    if isinstance(found, Unavailable):
        pytest.skip(f"{name}: {found.reason}")
    return name


@pytest.fixture(params=ONNX_PROVIDERS)
def onnx_provider(request: pytest.FixtureRequest) -> str:
    """Each provider that opens ONNX files."""
    return _there(request.param)


@pytest.fixture(params=(*ONNX_PROVIDERS, "torch"))
def provider(request: pytest.FixtureRequest) -> str:
    """Each provider that computes."""
    return _there(request.param)


@pytest.fixture
def open_case(provider: str, tmp_path: Path) -> Iterator[Open]:
    """``open_case(case, **target_fields)``: a session on a case; closed at the end."""
    with ExitStack() as stack:

        def _open(case: Case, **fields: object) -> Session:
            target = Target(name=provider, provider=provider, **fields)  # type: ignore[arg-type]
            engine = registry.provider(provider)
            if engine.accepts_onnx:
                return stack.enter_context(engine.open(case.write(tmp_path), target))
            return stack.enter_context(_open_torch(case, target))

        yield _open


def _open_torch(case: Case, target: Target) -> Session:
    import torch

    from toolkit.providers.torch_ import open_module_session

    class Module(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> object:
            return case.forward(*tensors)

    return open_module_session(Module(), case.inputs, case.outputs, target)
