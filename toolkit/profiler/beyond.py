"""What a case costs beside time: throughput, energy, money, device memory; and what slowed the machine meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from toolkit.profiler.costs import Machine
from toolkit.profiler.gauges import Readings
from toolkit.profiler.offline import Search
from toolkit.profiler.records import CaseRecord, EnergyRecord
from toolkit.profiler.schedule import Course, Turn

FREQUENCY_DROP = 0.05
ALONE = 2.0
"""Mean over median latency of several streams beyond which the median says little about the load."""
BRAKED_SHARE = 0.1
# With fewer blocks in each third, one odd reading would speak for all.
_FEWEST_BLOCKS = 4


def block_time(course: Course, turn: Turn) -> float:
    """What is compared: the median latency of a block, in nanoseconds.

    With several streams it is the wall time per call, all streams together: calls of microseconds may hold the
    interpreter's lock for themselves, so that most of them never met another. Offline, where batches differ, it is that
    per sample.
    """
    batch = course.openings[-1].batch if course.case.scenario == "offline" else 1
    if course.case.scenario == "single-stream":
        return float(np.median(turn.samples_ns))
    return turn.window_ns / (turn.done * batch) if turn.done else float(np.median(turn.samples_ns)) / batch


def throughput(course: Course) -> float:
    """Samples per second.

    One stream is as fast as its calls; several are judged by the wall clock, in which their calls overlap.
    """
    batch = course.openings[-1].batch
    done, window_ns = sum(turn.done for turn in course.turns), sum(turn.window_ns for turn in course.turns)
    if course.case.scenario == "single-stream" or not done or not window_ns:
        return float(batch * 1e9 / np.mean(np.concatenate([turn.samples_ns for turn in course.turns])))
    return batch * done * 1e9 / window_ns


def alone(course: Course, samples_per_s: float, p50_ns: int | None) -> list[str]:
    """Said where the median call of several streams was much faster than the streams together account for."""
    streams, batch = course.openings[-1].streams, course.openings[-1].batch
    if course.case.scenario != "multi-stream" or not p50_ns or not samples_per_s:
        return []
    mean_ns = streams * batch * 1e9 / samples_per_s
    if mean_ns < ALONE * p50_ns:
        return []
    return [f"most calls met no other one, {mean_ns / p50_ns:.0f} times below the mean: read the throughput, not p50"]


def with_costs(record: CaseRecord, course: Course, search: Search | None, machine: Machine) -> CaseRecord:
    """``record`` with all that is known beside time."""
    if record.status != "ok" or record.throughput_per_s is None or not course.turns:
        return record
    readings = [turn.readings for turn in course.turns]
    memory = [item.device_memory_bytes for item in readings if item.device_memory_bytes is not None]
    facts: dict[str, Any] = {
        "energy": energy(course, record.throughput_per_s, machine),
        "price": machine.price(record.throughput_per_s),
        "device_memory_bytes": max(memory, default=None),
        "device_latency_ns": _median([ns for turn in course.turns for ns in turn.device_ns]),
        "copy_ns": _median([ns for turn in course.turns for ns in turn.copy_ns]),
        "batches_tried": [] if search is None else search.tried,
        "warnings": [*record.warnings, *slowed(readings), *([] if search is None else search.doubts)],
    }
    return msgspec.structs.replace(record, **facts)


def _median(values: Sequence[int]) -> int | None:
    return int(np.median(values)) if values else None


def energy(course: Course, samples_per_s: float, machine: Machine) -> EnergyRecord:
    """Joules per sample: counted by the hardware, else from the user's watts, else the reason why not."""
    instruments, batch = course.openings[-1].instruments, course.openings[-1].batch
    counted = [turn.readings for turn in course.turns if turn.readings.joules is not None]
    joules = sum(item.joules or 0.0 for item in counted)
    runs, duration_ns = sum(item.runs for item in counted), sum(item.duration_ns for item in counted)
    if joules > 0 and runs:
        idle = [item.instruments.idle_watts for item in course.openings if item.instruments.idle_watts is not None]
        return EnergyRecord(
            joules=joules / (runs * batch), watts=joules * 1e9 / duration_ns,
            idle_watts=float(np.median(idle)) if idle else None, source=instruments.source,
        )  # fmt: skip
    said = machine.energy(samples_per_s)
    if said is not None:
        return said
    reason = instruments.reason or f"{instruments.source} counted nothing"
    return EnergyRecord(reason=f"not measurable here: {reason}")


def slowed(readings: Sequence[Readings]) -> Iterator[str]:
    """Signs that the processor or the device ran below its clock, in plain words."""
    rates = [item.cpu_khz for item in readings if item.cpu_khz]
    third = len(rates) // 3
    if third >= _FEWEST_BLOCKS:
        drop = 1 - float(np.median(rates[-third:]) / np.median(rates[:third]))
        if drop > FREQUENCY_DROP:
            yield f"the CPU's clock fell by {drop:.0%} from the first to the last third of the run"
    for reason, count in Counter(reason for item in readings for reason in item.brakes).items():
        if count > BRAKED_SHARE * len(readings):
            yield f"the device ran below its clock in {count / len(readings):.0%} of the blocks: {reason}"
