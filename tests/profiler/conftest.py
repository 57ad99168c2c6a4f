"""Null models: no engine, real processes. They are slow, crash or hang on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toolkit.providers.null import NullModel
from toolkit.tensors import TensorSpec

X = (TensorSpec("x", "float32", ("batch", 4)),)
Y = (TensorSpec("y", "float32", ("batch", 2)),)


@pytest.fixture
def null_model(tmp_path: Path) -> Callable[..., str]:
    """``null_model("name", delay_ns=…)`` writes a model file and gives its path."""

    def write(name: str = "model.json", **changes: Any) -> str:
        path = tmp_path / name
        path.write_bytes(msgspec.json.encode(NullModel(**{"inputs": X, "outputs": Y, **changes})))
        return str(path)

    return write
