"""What an engine's own instruments tell of a model's nodes: time and precision of each, and what it stands for."""

from __future__ import annotations

from typing import Protocol

import msgspec

from toolkit.tensors import Array, Feeds


class NodeTime(msgspec.Struct, frozen=True, kw_only=True):
    """One node as the engine ran it.

    Attributes:
        name: what the engine calls it.
        operator: what ran, by the engine's name for it.
        time_ns: per run, on average, what other nodes do inside it included; a node that runs several times per run, as
            in a loop, counts every time.
        best_ns: of the fastest runs that the instruments can tell apart.
        precision: what it computed in; "" where the engine does not say.
        tensors: those of the file's tensors that it, or what was fused into it, computes.
        renamed: it may compute more than ``tensors`` says: what it hands on has no name in the file.
    """

    name: str
    operator: str
    time_ns: float
    best_ns: float
    precision: str = ""
    tensors: tuple[str, ...] = ()
    renamed: bool = False


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes that ran, in order of their first run.

    Attributes:
        typical: the times are those of typical runs; False for plain averages over all runs, slow ones included.
        executed_graph: ONNX file of the graph as the engine changed it, whose nodes have the same names; "" where
            ``NodeTime.tensors`` tells all.
        notes: what a reader should know about how this engine tells time.
    """

    nodes: list[NodeTime]
    typical: bool
    executed_graph: str = ""
    notes: tuple[str, ...] = ()


class Instruments(Protocol):
    """A model opened with the engine's instruments on."""

    most_runs: int
    """How many runs the instruments have room for."""

    def run(self, feeds: Feeds) -> dict[str, Array]: ...

    def start(self) -> None:
        """Forget all runs so far: they warmed up."""

    def mark(self) -> None:
        """End a round; the fastest of them counts for ``best_ns``."""

    def read(self) -> Reading:
        """What the runs since :meth:`start` took. Ends the instruments."""

    def close(self) -> None: ...
