"""What an export found and wrote."""

from __future__ import annotations

import msgspec

from toolkit.exporter.judge import CaseParity
from toolkit.tensors import TensorSpec


class Attempt(msgspec.Struct, frozen=True):
    """One strategy: ``reason`` says why it was not taken, and is empty for the one that was."""

    strategy: str
    reason: str


class ExportReport(msgspec.Struct, frozen=True):
    """What was written, how, and the evidence that it computes the same.

    Attributes:
        tolerance: the rule that every case was held against.
        cases: errors of the graph and of torch itself, per case and output; the last figure is the part of what is
            allowed.
        engine: what ran the graph.
        files: what else was written beside the output.
    """

    output: str
    source: str
    strategy: str
    attempts: tuple[Attempt, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_dims: tuple[str, ...]
    opset: int
    parameters: int
    size_bytes: int
    precision: str
    reference: str
    tolerance: str
    engine: str
    cases: tuple[CaseParity, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    sha256: str

    @property
    def worst_ratio(self) -> float:
        """The largest error of all cases as a part of what is allowed."""
        return max((output.ratio for case in self.cases for output in case.outputs), default=0.0)
