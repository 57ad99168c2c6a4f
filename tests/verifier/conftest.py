"""Small ONNX files, written as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, graph)``: the path of a file with the graph given in ONNX's text form."""

    def _write(name: str, graph: str) -> Path:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 17]>\n{graph}')
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return _write
