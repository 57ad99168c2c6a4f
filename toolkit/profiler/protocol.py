"""What the schedule and its workers say to each other: one JSON object per line, requests in, replies out."""

from __future__ import annotations

import msgspec

from toolkit.profiler.cases import Case, Status
from toolkit.profiler.gauges import Instruments, Readings
from toolkit.providers.instruments import Reading
from toolkit.providers.session import Execution

HOLDS_NAN = "holds NaN"
"""How a warning about an output of the first inference ends."""


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Import the engine, open the model, run it once; answered by :class:`Opened`."""

    case: Case


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Run for about ``duration_ns``; answered by :class:`Block`."""

    duration_ns: int


class Try(msgspec.Struct, frozen=True, tag="try"):
    """Run for about ``duration_ns`` at another batch, to see whether it pays; answered by :class:`Tried`."""

    batch: int
    duration_ns: int


class Prove(msgspec.Struct, frozen=True, tag="prove"):
    """Say what ran; answered by :class:`Proof`. Costly, so it comes after all measuring."""


class Opened(msgspec.Struct, frozen=True, tag="opened", kw_only=True):
    """The model is open. ``shapes`` are those that are fed; ``base_memory_bytes`` was in use before the engine came.

    ``streams`` is how many calls will run at the same time; ``free_batch`` says whether the model takes other batches.
    """

    import_ns: int
    load_ns: int
    first_inference_ns: int
    precision: str
    batch: int
    dims: dict[str, int]
    shapes: list[list[int]]
    base_memory_bytes: int
    warnings: list[str] = []
    streams: int = 1
    free_batch: bool = True
    instruments: Instruments = Instruments()


class Block(msgspec.Struct, frozen=True, tag="block"):
    """Latencies of calls in the order they were made; ``calls`` counts those that were thinned out too.

    With several streams, ``done`` calls were completed within ``window_ns``, parts of calls included. Where the device
    tells, ``device_ns`` and ``copy_ns`` split a few calls more into computation and copies.
    """

    samples_ns: list[int]
    calls: int
    peak_memory_bytes: int
    done: float = 0.0
    window_ns: int = 0
    readings: Readings = Readings()
    device_ns: list[int] = []
    copy_ns: list[int] = []


class Tried(msgspec.Struct, frozen=True, tag="tried"):
    batch: int
    samples_per_s: float
    peak_memory_bytes: int


class Proof(msgspec.Struct, frozen=True, tag="proof"):
    execution: Execution


class Instrument(msgspec.Struct, frozen=True, tag="instrument"):
    """Time single nodes for about ``duration_ns``; answered by :class:`NodesTimed`.

    What the engine's instruments write goes into ``folder``. ``alone``: without runs that are not instrumented.
    """

    folder: str
    duration_ns: int
    alone: bool = False


class NodesTimed(msgspec.Struct, frozen=True, tag="nodes_timed", kw_only=True):
    """Latencies of calls with and without instruments, what the nodes took, and the shapes that were fed, by name."""

    plain_ns: list[int]
    instrumented_ns: list[int]
    reading: Reading
    shapes: dict[str, list[int]]


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The request failed in a way that has an explanation."""

    status: Status
    reason: str


Request = Open | Measure | Try | Prove | Instrument
Reply = Opened | Block | Tried | Proof | NodesTimed | Refusal
