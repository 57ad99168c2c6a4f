"""The result of profiling as data: what is written to JSON, and what reports are made of.

History of ``schema_version`` (readers accept up to theirs):

    1   first version
"""

from __future__ import annotations

from typing import Any

import msgspec

from toolkit.profiler.cases import Status
from toolkit.profiler.environment import Environment
from toolkit.profiler.pairing import Verdict
from toolkit.providers.base import Execution

SCHEMA_VERSION = 1


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles in nanoseconds, their 99 % intervals, and why one is withheld."""

    p50: int | None = None
    p50_ci: tuple[int, int] | None = None
    p90: int | None = None
    p90_ci: tuple[int, int] | None = None
    p99: int | None = None
    p99_ci: tuple[int, int] | None = None
    withheld: dict[str, str] = {}


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
    """Everything that one run measured."""

    schema_version: int = SCHEMA_VERSION
    environment: Environment
    settings: dict[str, Any]
    cases: list[CaseRecord]
    comparisons: list[ComparisonRecord]
    warnings: list[str] = []
    interrupted: bool = False

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @property
    def measured(self) -> list[CaseRecord]:
        return [case for case in self.cases if case.status == "ok"]

    def comparison(self, candidate: CaseRecord) -> ComparisonRecord | None:
        """The comparison that ``candidate`` is the candidate of."""
        return next((item for item in self.comparisons if item.candidate == candidate.id), None)
