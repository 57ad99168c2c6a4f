"""Records made by hand, for tests of what is done with them: times are certain, machines are as wanted."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np

from toolkit.profiler.environment import Environment, environment
from toolkit.profiler.records import CaseRecord, Latency, ProfileReport
from toolkit.providers.session import Execution

MS = 1_000_000
RAN = Execution("null", "1", "none", 2, {"null": 3}, {"float32": 3})


def case(
    model: str = "m.onnx",
    ms: float = 10.0,
    *,
    target: str = "cpu",
    processes: int = 3,
    rounds: int = 12,
    seed: int = 0,
    **changes: Any,
) -> CaseRecord:
    """A measured case: ``processes`` of ``rounds`` blocks of four samples, which scatter by 1 %."""
    generator = np.random.default_rng(seed)
    count = processes * rounds * 4
    samples = (ms * MS * (1 + 0.01 * generator.standard_normal(count))).astype(np.int64)
    p50 = int(np.median(samples))
    record = CaseRecord(
        id=f"{model}@{target}", model=model, target=target, provider="null", precision="float32", batch=1, dims={},
        status="ok", latency_ns=Latency(p50=p50, p50_ci=(int(p50 * 0.99), int(p50 * 1.01))),
        samples_ns=samples.tolist(), blocks=[(process, number, 4) for process in range(processes)
                                             for number in range(rounds)],
        calls=count, execution=RAN, model_sha256=hashlib.sha256(model.encode()).hexdigest(),
    )  # fmt: skip
    return msgspec.structs.replace(record, **changes)


def report(*cases: CaseRecord, **changes: Any) -> ProfileReport:
    made = ProfileReport(
        environment=environment(), settings={"budget_s": 1.0, "seed": 0, "data": "random"}, cases=list(cases),
        comparisons=[], time_utc="2026-11-25T12:00:00+00:00",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def elsewhere(**changes: Any) -> Environment:
    """This machine, but for ``changes``."""
    return msgspec.structs.replace(environment(), **{"fingerprint": "0123456789abcdef", **changes})
