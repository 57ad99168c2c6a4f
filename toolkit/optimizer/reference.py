"""A session that needs no engine: onnx's reference implementation, for models too old for any engine."""

from __future__ import annotations

from pathlib import Path
from typing import final

import onnx
from onnx.reference import ReferenceEvaluator

from toolkit.graph.facts import facts
from toolkit.providers.session import Execution, Session
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds


@final
class ReferenceEngine:
    """Runs a model node by node in numpy: slow, and right by definition of the standard."""

    def __init__(self, model: Path) -> None:
        found = facts(model)
        self.inputs, self.outputs = found.inputs, found.outputs
        self._evaluator = ReferenceEvaluator(str(model))

    def run(self, feeds: Feeds) -> dict[str, Array]:
        names = [spec.name for spec in self.outputs]
        return dict(zip(names, self._evaluator.run(names, dict(feeds)), strict=True))

    def prove(self, feeds: Feeds) -> Execution:
        return Execution("ReferenceEvaluator", onnx.__version__, "CPU", 1, {}, {})

    def close(self) -> None:
        del self._evaluator


def reference_session(model: Path) -> Session:
    """Open ``model`` with the reference implementation."""
    target = Target(name="reference implementation", provider="reference")
    return Session(ReferenceEngine(model), "reference", target, str(model))
