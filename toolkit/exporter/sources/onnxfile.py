"""``MODEL.onnx``: a graph already. It is checked, written again and compared with itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.exporter.sources.source import Source
from toolkit.files import existing_file
from toolkit.graph.facts import facts


def open_onnx(text: str, request: Any) -> Source:
    path = existing_file(text, "model file")
    known = facts(path)
    return Source(name=Path(text).name, onnx=path, inputs=known.inputs)
