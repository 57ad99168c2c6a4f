"""What a strategy is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import onnx_ir as ir
from torch import Tensor

from toolkit.errors import one_line
from toolkit.exporter.adapter import Adapter
from toolkit.exporter.purity import Purity
from toolkit.exporter.sizes import Runs
from toolkit.tensors import TensorSpec


class Job(NamedTuple):
    """One module to turn into a graph.

    Attributes:
        example: one tensor per input, at the traced sizes; to be copied before use, since modules may write into
        inputs. outputs: names of the outputs. runs: whether the module itself runs at given sizes.
    """

    adapter: Adapter
    specs: tuple[TensorSpec, ...]
    traced: Mapping[str, int]
    example: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    opset: int | None
    purity: Purity
    runs: Runs

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in self.example)


class Candidate(NamedTuple):
    """A graph that is still to be judged, in its author's names.

    Attributes:
        sizes: further sizes to judge it at, because its making assumed something about them.
        notes: what the person should know if this one wins.
    """

    model: ir.Model
    sizes: Mapping[str, dict[str, int]]
    notes: tuple[str, ...] = ()


class StrategyFailed(Exception):
    """A strategy that does not apply or does not work; its text is the reason, a clause on one line."""

    def __init__(self, reason: object) -> None:
        super().__init__(one_line(reason, 240))


class NotNeeded(StrategyFailed):
    """A strategy that has nothing to do for this module."""


class Strategy(NamedTuple):
    name: str
    build: Callable[[Job], Candidate]


def reason_of(exc: BaseException) -> str:
    """The first line of an exporter's exception that says something."""
    lines = [line.strip(" -|#") for line in str(exc).splitlines()]
    text: Any = next((line for line in lines if line and not line.startswith(("Traceback", "Failed to", "File "))), "")
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
