"""Rounds out of records: what the statistics of ratios are computed from, again or for the first time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from toolkit.profiler.records import CaseRecord, Latency
from toolkit.profiler.statistics import PERCENTILES, Percentile, Samples, jitter, percentile


def blocks(case: CaseRecord) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    """The blocks of ``case`` in the order they were measured, as (process, round, samples in nanoseconds)."""
    samples, start = np.asarray(case.samples_ns, dtype=np.int64), 0
    for process, number, count in case.blocks:
        yield process, number, samples[start : start + count]
        start += count


def percentiles(found: Sequence[Samples]) -> dict[str, Percentile]:
    """All percentiles of samples taken in blocks, by name."""
    return {name: percentile(found, share) for name, share in PERCENTILES.items()}


def latency(found: Sequence[Samples]) -> Latency:
    """What a record says of samples taken in blocks."""
    return latency_of(percentiles(found), jitter(np.concatenate(found)))


def latency_of(found: Mapping[str, Percentile], spread: float | None) -> Latency:
    values: dict[str, object] = {}
    for name, item in found.items():
        values |= {name: item.value, f"{name}_ci": item.interval}
    withheld = {name: item.withheld for name, item in found.items() if item.withheld}
    return Latency(withheld=withheld, jitter=spread, **values)  # type: ignore[arg-type]  # one field pair per name in PERCENTILES


def log_medians(case: CaseRecord) -> dict[int, list[float]]:
    """Log of each block's median, by process; with several streams of the wall time per call, offline per sample.

    That time is not in the record, but calls that overlap share it: it is their mean over how many ran at once (Little,
    Operations Research 9, 1961).
    """
    found: dict[int, list[float]] = defaultdict(list)
    share = case.streams * ((case.batch or 1) if case.scenario == "offline" else 1)
    for process, _, samples in blocks(case):
        time_ns = np.median(samples) if case.scenario == "single-stream" else np.mean(samples) / share
        found[process].append(float(np.log(time_ns)))
    return dict(found)


def log_ratios(baseline: CaseRecord, candidate: CaseRecord) -> dict[int, list[float]]:
    """Log of the candidate's median over the baseline's, by process, in rounds of one run that both took part in."""
    base = {(process, number): np.median(samples) for process, number, samples in blocks(baseline)}
    found: dict[int, list[float]] = defaultdict(list)
    for process, number, samples in blocks(candidate):
        if (process, number) in base:
            found[process].append(float(np.log(np.median(samples) / base[process, number])))
    return dict(found)
