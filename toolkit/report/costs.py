"""What there is to know of a case beyond its typical latency, as columns that appear only where a case has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.report.numbers import digits, duration, size
from toolkit.report.quality import value_with_interval
from toolkit.report.rows import MISSING

Value = Callable[[CaseRecord], str]


class Column(msgspec.Struct, frozen=True):
    """``value`` is "" where a case has none; ``short`` is the head where room is scarce."""

    head: str
    short: str
    value: Value


def _time(field: str) -> Value:
    return lambda case: "" if getattr(case, field) is None else duration(getattr(case, field))


def _bytes(field: str) -> Value:
    return lambda case: size(getattr(case, field)) if getattr(case, field) else ""


def _percentile(field: str) -> Value:
    def value(case: CaseRecord) -> str:
        found = None if case.latency_ns is None else getattr(case.latency_ns, field)
        return "" if found is None else duration(found)

    return value


def jitter(case: CaseRecord) -> str:
    """Interquartile range over median, in percent."""
    found = None if case.latency_ns is None else case.latency_ns.jitter
    return "" if found is None else f"{found:.1%}"


def throughput(case: CaseRecord) -> str:
    """Samples per second."""
    return "" if case.throughput_per_s is None else f"{_amount(case.throughput_per_s)}/s"


def _amount(value: float) -> str:
    return f"{digits(value / 1e3)}k" if value >= 1e5 else digits(value)


def energy(case: CaseRecord) -> str:
    """Energy per sample with its source."""
    found = case.energy
    return "" if found is None or found.joules is None else _joules(found.joules)


_JOULES = (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9))


def _joules(value: float) -> str:
    unit, factor = next((pair for pair in _JOULES if value >= pair[1]), _JOULES[-1])
    return f"{digits(value / factor)} {unit}"


def _watts(case: CaseRecord) -> str:
    found = case.energy
    if found is None or found.watts is None:
        return ""
    idle = "" if found.idle_watts is None else f" ({digits(found.idle_watts)} idle)"
    return f"{digits(found.watts)} W{idle}"


def price(case: CaseRecord) -> str:
    """Of a million samples; small models cost so little that two digits need many places."""
    if case.price is None:
        return ""
    amount = case.price.per_million
    return f"{digits(amount) if amount >= 0.0995 or not amount else f'{amount:.2g}'} {case.price.currency}"


def accuracy(case: CaseRecord) -> str:
    """The value alone: its metric stands in the head or beside."""
    return "" if case.accuracy is None else value_with_interval(case.accuracy)


TAILS = (
    Column("p95", "p95", _percentile("p95")),
    Column("p99.9", "p99.9", _percentile("p99_9")),
    Column("Jitter", "jitter", jitter),
    Column("Throughput", "samples", throughput),
)
COSTS = (
    Column("Import", "import", _time("import_ns")),
    Column("Load", "load", _time("load_ns")),
    Column("First inference", "first run", _time("first_inference_ns")),
    Column("Peak memory", "memory", _bytes("peak_memory_bytes")),
    Column("Device memory", "device mem", _bytes("device_memory_bytes")),
    Column("Device time", "device", _time("device_latency_ns")),
    Column("Copies", "copies", _time("copy_ns")),
    Column("Size", "size", _bytes("size_bytes")),
    Column("Energy per sample", "energy", energy),
    Column("Power", "", _watts),
    Column("Price per million", "price/1M", price),
)
QUALITY = (Column("Quality", "quality", accuracy),)


def present(cases: Sequence[CaseRecord], columns: Sequence[Column]) -> list[Column]:
    """Those of ``columns`` that at least one case has a value for."""
    return [column for column in columns if any(column.value(case) for case in cases)]


def cells(case: CaseRecord, columns: Sequence[Column]) -> list[str]:
    return [column.value(case) or MISSING for column in columns]


def sources(report: ProfileReport) -> list[str]:
    """Where energy comes from and why it is not known, each once."""
    found = [case.energy for case in report.measured if case.energy is not None]
    known = dict.fromkeys(item.source for item in found if item.joules is not None and item.source)
    unknown = dict.fromkeys(item.reason for item in found if item.joules is None and item.reason)
    return [f"Energy from {', '.join(known)}."] * bool(known) + [f"Energy is not known: {why}." for why in unknown]
