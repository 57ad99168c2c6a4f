"""A profile report as Markdown, for pull requests and READMEs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from toolkit.profiler.records import OperatorRecord, ProfileReport
from toolkit.report.costs import COSTS, QUALITY, TAILS, cells, present, sources
from toolkit.report.headline import headline, tally
from toolkit.report.names import words
from toolkit.report.numbers import digits, duration, duration_with_interval
from toolkit.report.rows import MISSING, STATUS_TITLES, absent, baseline_names, remarks, sections

_HEAD = ("target", "p50 [99 % interval]", "p90", "p99", "time / baseline [99 %]", "verdict")
_OPERATORS = ("operator", "nodes of the model", "share", "time", "GFLOP/s", "of attainable")
_SHOWN = 10


def as_markdown(report: ProfileReport) -> str:
    """GitHub-flavoured tables, one per model and size."""
    return "\n".join(line for part in _PARTS for line in part(report)).rstrip() + "\n"


def _headline(report: ProfileReport) -> Iterator[str]:
    yield f"**{_escaped(headline(report))}** {_escaped(tally(report))}".rstrip()
    yield ""


def _numbers(report: ProfileReport) -> Iterator[str]:
    for section in sections(report):
        yield f"### {_escaped(section.title)}"
        yield ""
        lines = [(row.case.target, row.p50, row.p90, row.p99, row.ratio, row.verdict) for row in section.rows]
        yield from _table(_HEAD, lines, right=(2, 3))
    for name in baseline_names(report):
        yield f"Baseline: {code(name)}; a ratio below 1 is faster."
        yield ""


def _beyond(report: ProfileReport) -> Iterator[str]:
    cases = report.measured
    columns = present(cases, (*TAILS, *QUALITY, *COSTS))
    if columns:
        names = words(cases)
        head = ("case", *(column.head for column in columns))
        yield "### Beyond typical latency"
        yield ""
        lines = [(names[case.id], *cells(case, columns)) for case in cases]
        yield from _table(head, lines, right=range(1, len(head)))
    for text in sources(report):
        yield from (_escaped(text), "")


def _sweeps(report: ProfileReport) -> Iterator[str]:
    medians = {case.id: case.latency_ns for case in report.measured if case.latency_ns}
    for sweep in report.sweeps:
        yield f"### {_escaped(sweep.model)} on {_escaped(sweep.target)} over {_escaped(sweep.variable)}"
        yield ""
        points = [(value, medians[name]) for value, name in sweep.points if name in medians]
        lines = [(f"{value:g}", duration_with_interval(found.p50 or 0, found.p50_ci)) for value, found in points]
        yield from _table((sweep.variable, "p50 [99 % interval]"), lines, right=(0,))
        if sweep.exponent is not None:
            low, high = sweep.exponent_ci or (None, None)
            bounds = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
            yield f"time ∝ {_escaped(sweep.variable)}^{sweep.exponent:.2f}{bounds}"
            yield ""
        yield from (f"- {_escaped(text)}" for text in sweep.notes)


def _operators(report: ProfileReport) -> Iterator[str]:
    for case in report.measured:
        if case.operators is not None:
            found = case.operators
            yield f"### Where the time of {code(case.id)} goes"
            yield ""
            rest = found.operators[_SHOWN:]
            lines = [_operator(record) for record in found.operators[:_SHOWN]]
            lines += [_sum(f"{len(rest)} others", sum(item.time_ns for item in rest), found.latency_ns)] * bool(rest)
            lines.append(_sum("unexplained", found.unexplained_ns, found.latency_ns))
            yield from _table(_OPERATORS, lines, right=(2, 3, 4, 5))


def _operator(record: OperatorRecord) -> tuple[str, ...]:
    nodes = ", ".join(code(name) for name in record.nodes[:2]) + (" …" if len(record.nodes) > 2 else "")
    rate = MISSING if not record.flops or record.time_ns <= 0 else digits(record.flops / record.time_ns)
    peak = MISSING if record.of_peak is None else f"{record.of_peak:.0%}"
    return record.operator, nodes or MISSING, f"{record.share:.1%}", duration(record.time_ns), rate, peak


def _sum(name: str, time_ns: float, latency_ns: float) -> tuple[str, ...]:
    return name, MISSING, f"{time_ns / latency_ns:.1%}", duration(time_ns), MISSING, MISSING


def _remarks(report: ProfileReport) -> Iterator[str]:
    found = list(remarks(report))
    if found:
        yield "**Read with care**"
        yield ""
        yield from (f"- {code(who)}: {_escaped(text)}" for who, text in found)
        yield ""


def _absent(report: ProfileReport) -> Iterator[str]:
    for status, reasons in absent(report).items():
        yield f"**{STATUS_TITLES[status]}**"
        yield ""
        for reason, concerned in reasons.items():
            yield f"- {', '.join(code(who) for who in concerned)}: {_escaped(reason)}"
        yield ""


def _where(report: ProfileReport) -> Iterator[str]:
    machine = report.environment
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    yield f"{machine.cpu}, {machine.usable_cores} cores, {machine.os}; {packages}; environment `{machine.fingerprint}`"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    yield _line(head)
    yield _line(["--:" if index in right else "---" for index in range(len(head))])
    yield from map(_line, lines)
    yield ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def code(text: str) -> str:
    """A code span that shows ``text``, backticks and all.

    Source: spec.commonmark.org/0.31.2, section 6.1: the fence is longer than any run of backticks within, and a blank
    on either side keeps it apart from them.
    """
    folded = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", folded)), default=0))
    blank = " " if "`" in folded else ""
    return f"{fence}{blank}{folded}{blank}{fence}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


_PARTS = (_headline, _numbers, _beyond, _sweeps, _operators, _remarks, _absent, _where)
