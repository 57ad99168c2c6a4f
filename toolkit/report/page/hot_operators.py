"""Where the time of each case goes: its slowest operators, and what no operator accounts for."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from toolkit.profiler.records import CaseRecord, OperatorProfile, OperatorRecord
from toolkit.report.columns import shortened
from toolkit.report.kinds import KINDS, kind
from toolkit.report.numbers import digits, duration
from toolkit.report.page import svg
from toolkit.report.page.cells import Cell, known, table
from toolkit.report.page.context import Context

SHOWN = 10
_HEAD = ("Operator", "Share of latency", "Time", "GFLOP/s", "GB/s", "Of attainable", "Bound by", "Precision")
_NAME = 60


def hot_operators(context: Context) -> Iterator[str]:
    """A table per case that has operators."""
    for case in context.report.measured:
        if case.operators is not None:
            yield f"<h3>{context.told(case)}</h3>"
            yield from _one(case, case.operators)


def _one(case: CaseRecord, found: OperatorProfile) -> Iterator[str]:
    longest = max([*(record.share for record in found.operators), found.unexplained_ns / found.latency_ns, 1e-9])
    lines = [_line(record, longest) for record in found.operators[:SHOWN]]
    rest = found.operators[SHOWN:]
    if rest:
        share, time_ns = sum(record.share for record in rest), sum(record.time_ns for record in rest)
        lines.append(_remainder(f"{len(rest)} others", Cell(f"{share:.1%}", "drawn"), time_ns))
    unexplained = found.unexplained_ns / found.latency_ns
    lines.append(_remainder("unexplained", Cell(_bar(unexplained, longest, "rest"), "drawn"), found.unexplained_ns))
    yield from table(f"Slowest operators of {case.id}", _HEAD, lines)
    slower = found.instrumented_ns / found.latency_ns - 1
    how = f"Scaled to {duration(found.latency_ns)} without instruments; with them it took {slower:+.0%}."
    notes = [f"{note[:1].upper()}{note[1:]}." for note in found.notes]
    yield f'<p class="key">{escape(" ".join([how, *notes]))}</p>'


def _line(record: OperatorRecord, longest: float) -> list[Cell]:
    rate, traffic = achieved(record)
    return [
        Cell(_name(record)),
        Cell(_bar(record.share, longest, f"s{KINDS.index(kind(record)) % len(svg.SHAPES)}"), "drawn"),
        Cell(duration(record.time_ns)),
        known(None if rate is None else digits(rate / 1e9)),
        known(None if traffic is None else digits(traffic / 1e9)),
        known(None if record.of_peak is None else f"{record.of_peak:.0%}"),
        known(record.bound),
        known(record.precision),
    ]


def achieved(record: OperatorRecord) -> tuple[float | None, float | None]:
    """Operations and bytes per second; None where they were not counted."""
    if record.time_ns <= 0:
        return None, None
    rate = None if record.flops is None else record.flops / record.time_ns * 1e9
    return rate, None if record.bytes is None else record.bytes / record.time_ns * 1e9


def _name(record: OperatorRecord) -> str:
    """What ran and, below, the nodes of the model that it stands for."""
    nodes = [shortened(name, _NAME) for name in record.nodes[:2]]
    more = f" and {len(record.nodes) - 2} more" if len(record.nodes) > 2 else ""
    origin = escape(" + ".join(nodes) + more) if nodes else "of the engine’s own making"
    about = f'<span class="dim" title="{escape(", ".join(record.nodes))}">{kind(record)} · {origin}</span>'
    return f"{escape(record.operator)}<br>{about}"


def _remainder(name: str, share: Cell, time_ns: float) -> list[Cell]:
    return [Cell(f"<em>{name}</em>"), share, Cell(duration(time_ns)), *[known(None)] * 5]


def _bar(share: float, longest: float, class_: str) -> str:
    width = 100 * max(0.0, share) / longest
    drawn = svg.element(
        "svg", svg.rectangle(0, 0, width, 10, f"bar {class_}"), viewBox="0 0 100 10", preserveAspectRatio="none",
        aria_hidden="true", class_="share",
    )  # fmt: skip
    return f"<span>{share:.1%}</span>{drawn}"
