"""Where the time of each measured case goes: its operators, their share of the latency, and how near to the peak."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

import msgspec

from toolkit.errors import ToolkitError
from toolkit.profiler.cases import Case, label
from toolkit.profiler.interrupts import measuring
from toolkit.profiler.peaks import measured_peaks
from toolkit.profiler.process import CaseEnded
from toolkit.profiler.records import CaseRecord, OperatorProfile, OperatorRecord, PeakRecord
from toolkit.profiler.roofline import peak_for, roof
from toolkit.profiler.schedule import OnProgress, Progress
from toolkit.profiler.timing import Start, Timed, TimedNode, time_nodes
from toolkit.providers.base import first_line

_DURATION_NS, _PROCESSES = 3_000_000_000, 3
# Names, shapes and thread statistics of a node are put into words while its clock runs; more than that is no overhead.
_MOST_OVERHEAD_NS = 5_000.0
# Below, the microseconds that engines count in are too coarse to say how near to a peak a node is.
_COARSE_NS = 10_000.0


class Found(msgspec.Struct, frozen=True):
    """Records with their operators, and the peaks of their targets."""

    cases: list[CaseRecord]
    peaks: list[PeakRecord]
    interrupted: bool = False


def time_operators(
    cases: Sequence[Case], records: Sequence[CaseRecord], start: Start, on_progress: OnProgress
) -> Found:
    """Fill in where the time of each measured case goes.

    Each case runs once more in a fresh worker, then the peaks of its target are measured. A case whose engine has no
    instruments keeps its record, with a warning that says so. Ctrl-C keeps what there is.

    Args:
        cases, records: in the same order.
    """
    course = _Course(cases, list(records), start, on_progress)
    try:
        with measuring():
            course.time_cases()
            course.measure_peaks()
    except KeyboardInterrupt:
        return Found(course.filled(), course.peaks, interrupted=True)
    return Found(course.filled(), course.peaks)


@final
class _Course:
    """What has been timed so far."""

    def __init__(self, cases: Sequence[Case], records: list[CaseRecord], start: Start, on_progress: OnProgress) -> None:
        self._cases, self._records, self._start, self._on_progress = cases, records, start, on_progress
        self._timed: dict[int, Timed] = {}
        self.peaks: list[PeakRecord] = []

    def time_cases(self) -> None:
        wanted = [index for index, record in enumerate(self._records) if record.status == "ok"]
        for position, index in enumerate(wanted):
            case = self._cases[index]
            self._on_progress(Progress(f"timing operators: {label(case)}", position / len(wanted), 0.0))
            try:
                if self._records[index].streams > 1:
                    raise CaseEnded("not_applicable", "calls of several streams overlap; single-stream has it")
                self._timed[index] = _timed(case, self._start)
            except CaseEnded as exc:
                self._records[index] = _unexplained(self._records[index], exc.reason)
            except Exception as exc:  # noqa: BLE001 - whatever it is, what was measured is not lost over it
                reason = str(exc) if isinstance(exc, ToolkitError) else f"{type(exc).__name__}: {first_line(exc)}"
                self._records[index] = _unexplained(self._records[index], reason)

    def measure_peaks(self) -> None:
        for target in {self._cases[index].target.name: self._cases[index].target for index in self._timed}.values():
            self._on_progress(Progress(f"measuring peaks: {target.name}", 1.0, 0.0))
            members = [index for index in self._timed if self._cases[index].target.name == target.name]
            found, reason = measured_peaks(target, _precisions(self._timed[index] for index in members), self._start)
            self.peaks += found
            for index in members if reason else ():
                notes = (*self._timed[index].notes, f"no peak to compare with: {reason}")
                self._timed[index] = msgspec.structs.replace(self._timed[index], notes=notes)

    def filled(self) -> list[CaseRecord]:
        return [
            msgspec.structs.replace(record, operators=operator_profile(record, self._timed[index], self.peaks))
            if index in self._timed
            else record
            for index, record in enumerate(self._records)
        ]


def _timed(case: Case, start: Start) -> Timed:
    if case.opener is not None or not case.path.endswith(".onnx"):
        raise CaseEnded("not_applicable", "only ONNX files have nodes to tell apart")
    with tempfile.TemporaryDirectory(prefix="toolkit-operators-") as folder:
        return time_nodes(case, start, Path(folder), _DURATION_NS, processes=_PROCESSES)


def _unexplained(record: CaseRecord, reason: str) -> CaseRecord:
    return msgspec.structs.replace(record, warnings=[*record.warnings, f"no time per operator: {reason}"])


def _precisions(timed: Iterable[Timed]) -> set[str]:
    return {item.node.precision for one in timed for item in one.nodes if item.cost.flops}


def operator_profile(record: CaseRecord, timed: Timed, peaks: Sequence[PeakRecord]) -> OperatorProfile:
    """Scale the nodes' times to the median that ``record`` was measured at, and compare them with the peaks."""
    assert record.latency_ns is not None and record.latency_ns.p50 is not None, "only measured cases are timed"
    latency = float(record.latency_ns.p50)
    # Instruments make nothing faster: where they seem to, the machine was busier while they were off.
    whole = min(timed.plain_ns, timed.instrumented_ns)
    own, notes = without_overhead([item.own_ns for item in timed.nodes], whole, timed.instrumented_ns)
    scale = latency / whole
    operators = [
        _operator(item, time * scale, latency, peak_for(item.node.precision, record.target, peaks))
        for item, time in zip(timed.nodes, own, strict=True)
    ]
    return OperatorProfile(
        latency_ns=latency,
        instrumented_ns=timed.instrumented_ns * scale,
        unexplained_ns=max(0.0, latency - sum(item.time_ns for item in operators)),
        operators=sorted(operators, key=lambda item: -item.time_ns),
        notes=[*timed.notes, *notes],
    )


def without_overhead(
    times_ns: Sequence[float], plain_ns: float, instrumented_ns: float
) -> tuple[list[float], list[str]]:
    """Times of nodes in a run without instruments, and a note where they had to be made to fit into it.

    Instruments cost about the same for every node, and partly while its clock still runs. How much cannot be more than
    an instrumented run takes longer per node, nor than the shortest node takes. Where the times still add up to more
    than a whole run, the machine was busier while they were taken: they shrink alike.
    """
    per_node = max(0.0, instrumented_ns - plain_ns) / max(1, len(times_ns))
    cost = min([per_node, _MOST_OVERHEAD_NS, *(time for time in times_ns if time > 0)])
    own = [max(0.0, time - cost) for time in times_ns]
    total = sum(own)
    if total <= plain_ns:
        return own, []
    note = f"nodes took {total / plain_ns - 1:.0%} longer than a whole run without instruments, and were scaled down"
    return [time * plain_ns / total for time in own], [note]


def _operator(item: TimedNode, time_ns: float, latency_ns: float, peak: PeakRecord | None) -> OperatorRecord:
    cost = item.cost
    above = roof(cost, peak, item.operators) if peak is not None and item.nodes and time_ns >= _COARSE_NS else None
    return OperatorRecord(
        name=item.node.name,
        operator=item.node.operator,
        nodes=item.nodes,
        operators=item.operators,
        time_ns=time_ns,
        share=time_ns / latency_ns,
        precision=item.node.precision,
        flops=cost.flops if item.nodes else None,
        bytes=cost.read_bytes + cost.written_bytes if item.nodes else None,
        of_peak=above.least_ns / time_ns if above else None,
        bound=above.bound if above else "",
    )
