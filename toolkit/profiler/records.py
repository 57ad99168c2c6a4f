"""The result of profiling as data: what is written to JSON, and what reports are made of.

History of ``schema_version`` (readers accept up to theirs):

    1   first version
    2   percentiles p95 and p99.9, jitter; scenarios, sweeps, operators, peaks, energy, price, accuracy, model hashes
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from toolkit.profiler.cases import Scenario as Scenario
from toolkit.profiler.cases import Status
from toolkit.profiler.environment import Environment
from toolkit.profiler.pairing import Verdict
from toolkit.providers.session import Execution

SCHEMA_VERSION = 2


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles in nanoseconds, their 99 % intervals, and why one is withheld.

    Attributes:
        jitter: interquartile range over the median: how far apart the middle half of the calls lies.
    """

    p50: int | None = None
    p50_ci: tuple[int, int] | None = None
    p90: int | None = None
    p90_ci: tuple[int, int] | None = None
    p95: int | None = None
    p95_ci: tuple[int, int] | None = None
    p99: int | None = None
    p99_ci: tuple[int, int] | None = None
    p99_9: int | None = None
    p99_9_ci: tuple[int, int] | None = None
    jitter: float | None = None
    withheld: dict[str, str] = {}


class OperatorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One node as the engine ran it.

    Attributes:
        name: what the engine calls the node.
        operator: what ran, by the engine's name for it ("FusedConv", "FullyConnected").
        nodes: names of the nodes of the model that it stands for; several where they were fused, none where the engine
            brought it in (a layout change).
        operators: the operators of those nodes, in the same order.
        time_ns: per inference, scaled so that all of them and the unexplained remainder add up to the latency.
        share: of the latency.
        precision: what it computed in; "" where the engine does not say.
        flops: floating-point or integer operations per inference (a multiply-add is two); None where no rule counts it.
        bytes: read and written per inference, each tensor once.
        of_peak: achieved over attainable at its arithmetic intensity (roofline; Williams et al., CACM 52, 2009).
        bound: which roof is above it; "" where there is none to compare with.
    """

    name: str
    operator: str
    nodes: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    time_ns: float
    share: float
    precision: str = ""
    flops: int | None = None
    bytes: int | None = None
    of_peak: float | None = None
    bound: Literal["compute", "memory", ""] = ""


class OperatorProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one case goes, from a run of its own with the engine's instruments on.

    Attributes:
        latency_ns: median without instruments, which ``operators`` are scaled to.
        instrumented_ns: median with them.
        unexplained_ns: the part of ``latency_ns`` that no node accounts for.
        operators: the slowest first.
    """

    latency_ns: float
    instrumented_ns: float
    unexplained_ns: float
    operators: list[OperatorRecord]
    notes: list[str] = []


class PeakRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine can do at most, measured in the same run through the same engine.

    Attributes:
        precision: of the large matrix product that was timed, for ``flops_per_s``; engines' convolutions may do more,
            ``conv_flops_per_s``.
        bytes_per_s: of a pass over an array far larger than the caches that reads and writes every element in place,
            where no line is fetched only to be overwritten; ``read_bytes_per_s``: of one that only reads.
        cached_bytes_per_s, cached_read_bytes_per_s: the same over arrays that stay in the caches, at the best size.
        cache_bytes: of the last-level cache, which decides how much of a node's traffic has to come from memory.
    """

    target: str
    precision: str
    flops_per_s: float | None
    bytes_per_s: float | None
    read_bytes_per_s: float | None = None
    cached_bytes_per_s: float | None = None
    cached_read_bytes_per_s: float | None = None
    cache_bytes: int = 0
    conv_flops_per_s: float | None = None


class EnergyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Energy per sample, or why it is not known here.

    Attributes:
        source: "RAPL", "NVML", or "machine.toml" for the watts a user says the machine draws.
        idle_watts: drawn by the same counter with the engine idle, which is in ``joules`` too; None where not known.
    """

    joules: float | None = None
    watts: float | None = None
    idle_watts: float | None = None
    source: str = ""
    reason: str = ""


class PriceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a million samples cost, from the user's price of the machine per hour and the throughput."""

    per_million: float
    currency: str


class AccuracyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of the model on this target, over labelled samples."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    samples: int


class SweepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How latency grows along one variable.

    Attributes:
        variable: "batch", "threads", "width", or the name of a dim.
        points: value of the variable, and the id of the case measured there.
        exponent: b of latency = a · variable^b, fitted where the cost grows (see ``notes``); None with too few points.
    """

    model: str
    target: str
    variable: str
    points: list[tuple[float, str]]
    exponent: float | None = None
    exponent_ci: tuple[float, float] | None = None
    notes: list[str] = []


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One case.

    Attributes:
        id: how comparisons refer to it.
        dims: sizes of the named dims but for the batch.
        samples_ns: latency of single calls, in the order they were made.
        blocks: cuts ``samples_ns`` into the blocks it was measured in: (process, round, number of samples).
        calls: how many were made; of very short ones not all are kept.
        throughput_per_s: samples of data per second, one call after the other.
        import_ns, load_ns, first_inference_ns: medians over the case's processes.
        peak_memory_bytes: of the worker process; ``base_memory_bytes`` of it were in use before the engine came.
        device_memory_bytes: on the device, at most; None where there is none or it does not tell.
        device_latency_ns: median between device events around the computation, copies apart; ``copy_ns`` is theirs.
        model_sha256: of the file, or of what a source's text opens; size_bytes: of all files of the model.
        scenario: "single-stream": one call after the other; "multi-stream": ``streams`` calls at the same time;
            "offline": as many samples as possible per second, at the best batch found.
        batches_tried: of an offline case, in the order they were tried: batch, samples per second.
    """

    id: str
    model: str
    target: str
    provider: str
    precision: str
    batch: int | None
    dims: dict[str, int]
    status: Status
    reason: str = ""
    latency_ns: Latency | None = None
    samples_ns: list[int] = []
    blocks: list[tuple[int, int, int]] = []
    calls: int = 0
    throughput_per_s: float | None = None
    import_ns: int | None = None
    load_ns: int | None = None
    first_inference_ns: int | None = None
    peak_memory_bytes: int | None = None
    base_memory_bytes: int | None = None
    execution: Execution | None = None
    warnings: list[str] = []
    device_memory_bytes: int | None = None
    device_latency_ns: int | None = None
    copy_ns: int | None = None
    model_sha256: str = ""
    size_bytes: int = 0
    scenario: Scenario = "single-stream"
    streams: int = 1
    operators: OperatorProfile | None = None
    energy: EnergyRecord | None = None
    price: PriceRecord | None = None
    accuracy: AccuracyRecord | None = None
    batches_tried: list[tuple[int, float]] = []


class ComparisonRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Two cases, by id. ``ratio`` is the candidate's time over the baseline's: below 1 is faster."""

    baseline: str
    candidate: str
    ratio: float
    ratio_ci: tuple[float, float] | None
    verdict: Verdict
    rounds: int
    processes: int


class ProfileReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one run measured.

    Attributes:
        request: what was asked for, as :mod:`toolkit.profiler.resuming` needs it to go on: models, targets, sizes.
        time_utc: when planning began, ISO 8601 to the second; "" in records of schema 1.
    """

    schema_version: int = SCHEMA_VERSION
    environment: Environment
    settings: dict[str, Any]
    cases: list[CaseRecord]
    comparisons: list[ComparisonRecord]
    warnings: list[str] = []
    interrupted: bool = False
    sweeps: list[SweepRecord] = []
    peaks: list[PeakRecord] = []
    request: dict[str, Any] = {}
    time_utc: str = ""

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @property
    def measured(self) -> list[CaseRecord]:
        return [case for case in self.cases if case.status == "ok"]

    def comparison(self, candidate: CaseRecord) -> ComparisonRecord | None:
        """The comparison that ``candidate`` is the candidate of."""
        return next((item for item in self.comparisons if item.candidate == candidate.id), None)
