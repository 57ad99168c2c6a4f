"""What is measured: one model on one target at one size, and the ones that cannot be, with the reason."""

from __future__ import annotations

from typing import Literal

import msgspec

from toolkit.targets import Target
from toolkit.tensors import TensorSpec

Status = Literal["ok", "not_applicable", "unavailable", "failed"]
Scenario = Literal["single-stream", "multi-stream", "offline"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to measure; it travels to the worker as it is.

    Attributes:
        model: what the report calls it.
        path: what is opened: a file, or the text of a source that ``opener`` understands.
        opener: ``package.module:function`` that makes of ``path`` a torch module and the specs of its inputs
            and outputs; None for files.
        group: models of different groups are never compared with each other.
        batch: samples per call; None for the model's own, which is 1 where it is free.
        dims: sizes of named dims; those that the model does not have are ignored.
        inputs: what to feed; None where only the opened session can tell.
        feeds: an ``.npz`` with arrays ``INDEX/NAME`` to feed instead of random ones; "" for random.
        size_bytes: of the files, to guess how much memory opening takes; model_sha256: of what opening reads.
        scenario: how it is called; ``streams`` is how many calls run at the same time.
        points: where on which sweeps it lies: values by variable.
        family, base: the model and the target as the user named them, without what a sweep varies of them.
    """

    model: str
    path: str
    target: Target
    opener: str | None = None
    group: str = ""
    precision: str = ""
    batch: int | None = None
    dims: dict[str, int] = {}
    inputs: tuple[TensorSpec, ...] | None = None
    feeds: str = ""
    seed: int = 0
    size_bytes: int = 0
    model_sha256: str = ""
    scenario: Scenario = "single-stream"
    streams: int = 1
    points: dict[str, float] = {}
    family: str = ""
    base: str = ""


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A case that is not measured."""

    case: Case
    status: Status
    reason: str


def label(case: Case) -> str:
    """The case as people refer to it: ``model@target``, with batch, dims and scenario where they were asked for.

    The batch of an offline case is found, not asked for.
    """
    sizes = {} if case.batch is None or case.scenario == "offline" else {"batch": case.batch}
    listed = [f"{name}={size}" for name, size in (sizes | case.dims).items()]
    listed += [f"streams={case.streams}"] if case.scenario == "multi-stream" else []
    listed += ["offline"] if case.scenario == "offline" else []
    return f"{case.model}@{case.target.name}" + (f"[{','.join(listed)}]" if listed else "")
