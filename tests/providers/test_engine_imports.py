"""What a failed import of an engine is taken for: absent, broken, or Ctrl-C at a bad moment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import MissingDependency, ProviderUnavailable
from toolkit.providers.base import Unavailable
from toolkit.providers.onnxruntime_ import import_onnxruntime
from toolkit.providers.openvino_ import import_openvino
from toolkit.providers.registry import provider
from toolkit.providers.torch_ import import_torch

ENGINES: dict[str, Callable[[], Any]] = {
    "onnxruntime": import_onnxruntime,
    "openvino": getattr(import_openvino, "__wrapped__", import_openvino),  # without its cache
    "torch": import_torch,
}
INTERRUPTED = {
    "as the cause": "try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt as exc:\n"
    "    raise ImportError('initialization failed') from exc\n",
    "as the context": "try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    raise ImportError('x')\n",
    "in the text": "raise ImportError('KeyboardInterrupt: <EMPTY MESSAGE>')\n",
}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of an engine that has to be imported anew, from ``tmp_path`` if something lies there."""
    name = str(request.param)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def write(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


@pytest.mark.parametrize("how", list(INTERRUPTED))
def test_ctrl_c_inside_an_import_is_no_missing_package(engine: str, tmp_path: Path, how: str) -> None:
    write(tmp_path, engine, INTERRUPTED[how])
    with pytest.raises(KeyboardInterrupt):
        ENGINES[engine]()


@pytest.mark.parametrize("code", ["import no_such_module_anywhere", "raise ImportError('libcudart.so.12')"])
def test_what_is_installed_and_broken_is_called_so(engine: str, tmp_path: Path, code: str) -> None:
    write(tmp_path, engine, code)
    with pytest.raises(ProviderUnavailable, match=f"the installed {engine} cannot be imported: .*(anywhere|libcudart)"):
        ENGINES[engine]()


def test_what_is_absent_is_called_so(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "Editable" not in repr(finder)])
    with pytest.raises(MissingDependency, match=f"needs the package {engine}, which is not installed"):
        ENGINES[engine]()


def test_a_broken_engine_is_an_unavailable_provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, "onnxruntime", "raise ImportError('libcudart.so.12: cannot open')")
    answer = provider("cpu").probe()
    assert isinstance(answer, Unavailable) and "libcudart" in answer.reason
