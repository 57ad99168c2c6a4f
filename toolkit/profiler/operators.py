"""Where the time of each measured case goes: its operators, their share of the latency, and how near to the peak."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from toolkit.errors import ToolkitError
from toolkit.profiler.cases import Case, label
from toolkit.profiler.peaks import measured_peaks
from toolkit.profiler.process import CaseEnded
from toolkit.profiler.records import CaseRecord, OperatorProfile, OperatorRecord, PeakRecord
from toolkit.profiler.roofline import peak_for, roof
from toolkit.profiler.schedule import OnProgress, Progress
from toolkit.profiler.timing import Start, Timed, TimedNode, time_nodes

_DURATION_NS = 3_000_000_000
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
    done = list(records)
    peaks: list[PeakRecord] = []
    timed: dict[int, Timed] = {}
    wanted = [index for index, record in enumerate(records) if record.status == "ok"]
    try:
        for position, index in enumerate(wanted):
            on_progress(Progress(f"timing operators: {label(cases[index])}", position / len(wanted), 0.0))
            try:
                timed[index] = _timed(cases[index], start)
            except ToolkitError as exc:
                done[index] = _unexplained(records[index], exc.reason if isinstance(exc, CaseEnded) else str(exc))
        for target in {cases[index].target.name: cases[index].target for index in timed}.values():
            on_progress(Progress(f"measuring peaks: {target.name}", 1.0, 0.0))
            members = [timed[index] for index in timed if cases[index].target.name == target.name]
            found, reason = measured_peaks(target, _precisions(members), start)
            peaks += found
            for index in timed:
                if reason and cases[index].target.name == target.name:
                    note = f"no peak to compare with: {reason}"
                    timed[index] = msgspec.structs.replace(timed[index], notes=(*timed[index].notes, note))
    except KeyboardInterrupt:
        return Found(_filled(done, timed, peaks), peaks, interrupted=True)
    return Found(_filled(done, timed, peaks), peaks)


def _timed(case: Case, start: Start) -> Timed:
    if case.opener is not None or not case.path.endswith(".onnx"):
        raise CaseEnded("not_applicable", "only ONNX files have nodes to tell apart")
    with tempfile.TemporaryDirectory(prefix="toolkit-operators-") as folder:
        return time_nodes(case, start, Path(folder), _DURATION_NS)


def _unexplained(record: CaseRecord, reason: str) -> CaseRecord:
    return msgspec.structs.replace(record, warnings=[*record.warnings, f"no time per operator: {reason}"])


def _precisions(timed: Iterable[Timed]) -> set[str]:
    return {item.node.precision for one in timed for item in one.nodes if item.cost.flops}


def _filled(records: list[CaseRecord], timed: dict[int, Timed], peaks: Sequence[PeakRecord]) -> list[CaseRecord]:
    return [
        msgspec.structs.replace(record, operators=operator_profile(record, timed[index], peaks))
        if index in timed
        else record
        for index, record in enumerate(records)
    ]


def operator_profile(record: CaseRecord, timed: Timed, peaks: Sequence[PeakRecord]) -> OperatorProfile:
    """Scale the nodes' times to the median that ``record`` was measured at, and compare them with the peaks."""
    assert record.latency_ns is not None and record.latency_ns.p50 is not None, "only measured cases are timed"
    latency = float(record.latency_ns.p50)
    own, notes = without_overhead([item.own_ns for item in timed.nodes], timed.plain_ns, timed.instrumented_ns)
    scale = latency / timed.plain_ns
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
    above = roof(cost, peak) if peak is not None and item.nodes and time_ns >= _COARSE_NS else None
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
