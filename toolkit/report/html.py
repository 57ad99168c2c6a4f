"""A profile report as one HTML page that needs no network: light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files

from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.report.interval_bars import interval_bar, scale_ns
from toolkit.report.numbers import duration, size
from toolkit.report.rows import STATUS_TITLES, Row, Section, absent, baseline_names, remarks, sections

_HEAD = (
    "Target", "p50 [99 % interval]", "p90", "p99", "Time / baseline", "Verdict", "Load", "First run", "Peak memory",
)  # fmt: skip
_PROOF_HEAD = ("Case", "Engine", "Device", "Threads", "Nodes", "Executed as")


def as_html(report: ProfileReport) -> str:
    """The whole page."""
    style = (files("toolkit.report") / "page.css").read_text(encoding="utf-8")
    parts = (_header, _numbers, _remarks, _absent, _proof, _environment)
    body = "\n".join(line for part in parts for line in part(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Latency report</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(report: ProfileReport) -> Iterator[str]:
    machine = report.environment
    gpus = "".join(f", {gpu.get('name', 'GPU')}" for gpu in machine.gpus)
    yield "<h1>Latency report</h1>"
    yield f"<p>{escape(machine.cpu)}, {machine.usable_cores} cores{escape(gpus)}</p>"
    names = ", ".join(f"<code>{escape(name)}</code>" for name in baseline_names(report))
    if names:
        yield f"<p>Compared with {names}. A ratio below 1 is faster.</p>"
    if report.interrupted:
        yield '<p class="doubt">The run was interrupted: this is what had been measured.</p>'


def _numbers(report: ProfileReport) -> Iterator[str]:
    found = sections(report)
    if not found:
        yield "<p>Nothing was measured.</p>"
    for section in found:
        yield f"<section>\n<h2>{escape(section.title)}</h2>"
        yield from _bars(section)
        yield from _table(_HEAD, (_line(row) for row in section.rows))
        yield "</section>"


def _table(head: Sequence[str], lines: Iterable[str]) -> Iterator[str]:
    yield '<div class="scroll"><table>'
    yield f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>\n<tbody>"
    yield from lines
    yield "</tbody></table></div>"


def _bars(section: Section) -> Iterator[str]:
    scale = scale_ns([row.case for row in section.rows])
    yield '<div class="bars">'
    for row in section.rows:
        yield (
            f'<div class="bar"><span>{escape(row.case.target)}</span><span>{escape(row.p50)}</span>'
            f"{interval_bar(row.case, scale)}</div>"
        )
    key = f"Bar: median; band: its 99 % interval; ticks: p90, p99. Full width: {duration(scale)}."
    yield f'<p class="key">{key}</p></div>'


def _line(row: Row) -> str:
    case = row.case
    cells = (
        case.target, row.p50, row.p90, row.p99, row.ratio, row.verdict, duration(case.load_ns or 0),
        duration(case.first_inference_ns or 0), size(case.peak_memory_bytes or 0),
    )  # fmt: skip
    return f'<tr class="{row.verdict.split(" ")[0]}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def _remarks(report: ProfileReport) -> Iterator[str]:
    found = list(remarks(report))
    if found:
        yield "<section>\n<h2>Read with care</h2>\n<ul>"
        yield from (f"<li><code>{escape(who)}</code>: {escape(text)}</li>" for who, text in found)
        yield "</ul>\n</section>"


def _absent(report: ProfileReport) -> Iterator[str]:
    for status, reasons in absent(report).items():
        yield f"<section>\n<h2>{STATUS_TITLES[status]}</h2>\n<ul>"
        for reason, concerned in reasons.items():
            yield f"<li>{', '.join(f'<code>{escape(who)}</code>' for who in concerned)}: {escape(reason)}</li>"
        yield "</ul>\n</section>"


def _proof(report: ProfileReport) -> Iterator[str]:
    proven = [case for case in report.measured if case.execution]
    if proven:
        yield "<section>\n<h2>What ran</h2>"
        yield from _table(_PROOF_HEAD, (_proof_line(case) for case in proven))
        yield "</section>"


def _proof_line(case: CaseRecord) -> str:
    found = case.execution
    assert found is not None, "only proven cases are listed"
    engine = f"{found.provider} {found.version}"
    counts = (_counts(found.nodes_by_provider), _counts(found.executed_precision))
    cells = (case.id, engine, found.device, str(found.threads), *counts)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _environment(report: ProfileReport) -> Iterator[str]:
    machine = report.environment
    quota = machine.container_quota_cores
    facts = {
        "CPU": f"{machine.cpu} ({', '.join(machine.cpu_features)})",
        "Usable cores": f"{machine.usable_cores}" + ("" if quota is None else f" (container quota {quota:g})"),
        "Memory": size(machine.memory_bytes),
        "Governor": machine.governor or "not readable here",
        "GPU": "; ".join(", ".join(gpu.values()) for gpu in machine.gpus) or "none",
        "System": f"{machine.os}, {machine.architecture}, Python {machine.python}",
        "Packages": ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        "Settings": ", ".join(f"{name} {value}" for name, value in report.settings.items() if value != ""),
        "Fingerprint": machine.fingerprint,
    }
    yield "<section>\n<h2>Environment</h2>\n<dl>"
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    yield "</dl>\n</section>"
