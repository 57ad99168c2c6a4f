"""Where the time goes, for the terminal: the slowest operators of each case, and what is left over."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.profiler.records import CaseRecord, OperatorProfile, OperatorRecord, PeakRecord, ProfileReport
from toolkit.report.columns import WIDTH, columns, note, shortened
from toolkit.report.numbers import digits, duration, size

_HEAD = ("  operator", "ran as", "time", "share", "achieved", "of peak")
_NUMERIC = (2, 3, 4, 5)
_LISTED = 12
_NAME, _RAN_AS = 28, 16
_BOUND = {"compute": "c", "memory": "m", "": " "}


def operator_tables(report: ProfileReport) -> Iterator[str]:
    """One table per case whose operators were timed, then the peaks they are compared with."""
    timed = [case for case in report.measured if case.operators is not None]
    for case in timed:
        yield from _table(case)
    if timed:
        yield from _peaks(report.peaks)


def _table(case: CaseRecord) -> Iterator[str]:
    profile = case.operators
    assert profile is not None, "only timed cases are shown"
    yield shortened(f"Where the time of {case.id} goes ({duration(profile.latency_ns)}):", WIDTH)
    listed = profile.operators[:_LISTED]
    rows = [_HEAD, *(_row(item) for item in listed)]
    rest = profile.operators[_LISTED:]
    if rest:
        time_ns = sum(item.time_ns for item in rest)
        rows.append(_sum(f"{len(rest)} more", time_ns, profile))
    rows.append(_sum("unexplained", profile.unexplained_ns, profile))
    yield from columns(rows, _NUMERIC)
    for text in profile.notes:
        yield from note(text)
    yield ""


def _row(item: OperatorRecord) -> tuple[str, ...]:
    name = item.nodes[0] if item.nodes else f"({item.name})"
    more = f" +{len(item.nodes) - 1}" if len(item.nodes) > 1 else ""
    peak = "" if item.of_peak is None else f"{100 * item.of_peak:.0f} % {_BOUND[item.bound]}"
    return (
        f"  {shortened(name, _NAME - len(more))}{more}", shortened(item.operator, _RAN_AS), duration(item.time_ns),
        _percent(item.share), achieved(item), peak,
    )  # fmt: skip


def achieved(item: OperatorRecord) -> str:
    """What an operator achieved, in the unit of the roof above it: ``142 GFLOP/s`` or ``18.2 GB/s``."""
    if not item.time_ns or not item.bound:
        return ""
    if item.bound == "compute":
        return f"{digits((item.flops or 0) / item.time_ns)} GFLOP/s"
    return f"{digits((item.bytes or 0) / item.time_ns)} GB/s"


def _sum(text: str, time_ns: float, profile: OperatorProfile) -> tuple[str, ...]:
    return (f"  {text}", "", duration(time_ns), _percent(time_ns / profile.latency_ns), "", "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _peaks(peaks: list[PeakRecord]) -> Iterator[str]:
    if not peaks:
        return
    yield "Peaks measured here (of peak: c by arithmetic, m by memory; roofline):"
    for target in dict.fromkeys(peak.target for peak in peaks):
        own = [peak for peak in peaks if peak.target == target]
        flops = [_flops(peak) for peak in own if peak.flops_per_s]
        yield from note(f"{target}: {', '.join([*flops, *_bandwidths(own[0])])}")
    yield ""


def _flops(peak: PeakRecord) -> str:
    convolution = f", convolution {digits(peak.conv_flops_per_s / 1e9)}" if peak.conv_flops_per_s else ""
    return f"{peak.precision} {digits((peak.flops_per_s or 0) / 1e9)} GFLOP/s{convolution}"


def _bandwidths(peak: PeakRecord) -> list[str]:
    found = []
    if peak.bytes_per_s:
        found.append(f"memory {digits(peak.bytes_per_s / 1e9)} GB/s")
    if peak.cached_bytes_per_s:
        cache = f" (up to {size(peak.cache_bytes)})" if peak.cache_bytes else ""
        found.append(f"cache {digits(peak.cached_bytes_per_s / 1e9)} GB/s{cache}")
    return found
