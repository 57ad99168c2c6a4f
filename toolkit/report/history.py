"""The history for the terminal and as CSV, and how one case went over time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import msgspec

from toolkit.profiler.history import Entry
from toolkit.report.columns import columns, shortened
from toolkit.report.numbers import digits, duration, time_unit
from toolkit.report.rows import MISSING

_PLOT = 34


def entries_table(entries: Sequence[Entry]) -> str:
    """One line per case, the newest run first."""
    if not entries:
        return "Nothing in the history fits."
    rows = [
        (_model(item), str(item.run), _minute(item), item.target, _setting(item), _p50(item), item.fingerprint[:6])
        for item in entries
    ]
    # The model's name is what may be cut, so it stands first.
    return "\n".join(columns([("model", "run", "time (UTC)", "target", "size", "p50", "env"), *rows], (1, 5)))


def entries_csv(entries: Sequence[Entry]) -> str:
    """RFC 4180 with a header line; times in nanoseconds, what is missing is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in msgspec.structs.fields(Entry)], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(msgspec.structs.asdict(item) for item in entries)
    return text.getvalue()


def _model(item: Entry) -> str:
    return f"{item.model} {item.model_sha256[:6]}".rstrip()


def _minute(item: Entry) -> str:
    return item.time_utc[:16].replace("T", " ")


def _size(item: Entry) -> str:
    batch = "" if item.batch is None else f"b{item.batch}"
    return shortened(",".join(part for part in (batch, item.dims) if part), 16)


def _how(item: Entry) -> str:
    """What tells runs of other scenarios from those of one call after the other; "" for these."""
    if item.scenario == "multi-stream":
        return f"{item.streams} streams" if item.streams else item.scenario
    return "" if item.scenario == "single-stream" else item.scenario


def _setting(item: Entry) -> str:
    return " ".join(part for part in (_size(item), _how(item)) if part)


def _p50(item: Entry) -> str:
    return item.status if item.p50_ns is None else duration(item.p50_ns)


def trend(entries: Sequence[Entry]) -> str:
    """Medians and their intervals, the oldest run first, a plot for each case and environment: others cannot be
    compared."""
    measured = [item for item in sorted(entries, key=lambda item: item.run) if item.p50_ns is not None]
    if not measured:
        return "Nothing in the history fits."
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for item in measured:
        key = (item.model, item.target, item.batch, item.dims, _how(item), item.fingerprint)
        groups.setdefault(key, []).append(item)
    return "\n".join(line for group in groups.values() for line in _plot(group)).rstrip()


def _plot(group: Sequence[Entry]) -> Iterator[str]:
    """One line per run: the median as ●, its interval as ├─┤, on one scale."""
    first = group[0]
    scenario = f"  {_how(first)}".rstrip()
    yield shortened(f"{first.model}  {first.target}  {_size(first)}{scenario}  environment {first.fingerprint}", 80)
    low = min(_bounds(item)[0] for item in group)
    high = max(_bounds(item)[1] for item in group)
    rows = [("time (UTC)", "run", "content", "p50", _axis(low, high))]
    rows += [
        (_minute(item), str(item.run), item.model_sha256[:6] or MISSING, _p50(item), _whisker(item, low, high))
        for item in group
    ]
    yield from columns(rows, (1, 3))
    yield ""


def _bounds(item: Entry) -> tuple[int, int]:
    middle = item.p50_ns or 0
    return (item.p50_low_ns or middle, item.p50_high_ns or middle)


def _axis(low: int, high: int) -> str:
    unit, size = time_unit(high)
    left, right = f"{digits(low / size)} {unit}", f"{digits(high / size)} {unit}"
    return f"{left}{right:>{_PLOT - len(left)}}" if high > low else left


def _whisker(item: Entry, low: int, high: int) -> str:
    def at(value: int) -> int:
        return round((value - low) / (high - low) * (_PLOT - 1)) if high > low else 0

    left, right = map(at, _bounds(item))
    cells = [" "] * _PLOT
    cells[left : right + 1] = "─" * (right - left + 1)
    cells[left], cells[right] = "├", "┤"
    cells[at(item.p50_ns or 0)] = "●"
    return "".join(cells).rstrip()
