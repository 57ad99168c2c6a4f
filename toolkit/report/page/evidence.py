"""What stands behind the numbers: what ran, on what, what did not, and costs other than latency."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from toolkit.profiler.records import CaseRecord
from toolkit.report.costs import COSTS, cells, present, sources
from toolkit.report.numbers import size
from toolkit.report.page.cells import Cell, Note, known, table
from toolkit.report.page.context import Context
from toolkit.report.rows import STATUS_TITLES, absent

_PROOF_HEAD = ("Case", "Engine", "Device", "Threads", "Nodes", "Executed as")


def costs(context: Context) -> Iterator[str]:
    """Start, memory, size, energy and price, as far as any case has them."""
    cases = context.report.measured
    columns = present(cases, COSTS)
    if not columns:
        return
    lines = [[Cell(context.told(case)), *map(known, cells(case, columns))] for case in cases]
    yield from table("Beyond latency", ("Case", *(column.head for column in columns)), lines)
    yield "".join(f'<p class="key">{escape(reason)}</p>' for reason in sources(context.report))


def proof(context: Context) -> Iterator[str]:
    """Provider, device, threads and executed precision of each case, as the engine reported them."""
    proven = [case for case in context.report.measured if case.execution]
    if proven:
        lines = [line for case in proven for line in _proof_lines(context, case)]
        yield from table("What ran", _PROOF_HEAD, lines)
    hashes = dict.fromkeys((case.model, case.model_sha256) for case in context.report.measured if case.model_sha256)
    if hashes:
        yield "<h3>SHA-256 of the models</h3>\n<ul>"
        yield from (f"<li>{escape(name)}: <code>{digest}</code></li>" for name, digest in hashes)
        yield "</ul>"


def _proof_lines(context: Context, case: CaseRecord) -> Iterator[list[Cell] | Note]:
    found = case.execution
    assert found is not None, "only proven cases are listed"
    engine = f"{found.provider} {found.version}"
    counts = (_counts(found.nodes_by_provider), _counts(found.executed_precision))
    texts = (engine, found.device, str(found.threads), *counts)
    yield [Cell(context.told(case)), *(known(text, "span" if len(text) > 12 else "") for text in texts)]
    if found.notes:
        yield Note(f'<span class="dim">{escape("; ".join(found.notes))}</span>')


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def missing(context: Context) -> Iterator[str]:
    """Cases and targets without numbers, with the reasons."""
    for status, reasons_ in absent(context.report).items():
        yield f"<h3>{STATUS_TITLES[status]}</h3><ul>"
        for reason, concerned in reasons_.items():
            yield f"<li>{', '.join(f'<code>{escape(who)}</code>' for who in concerned)}: {escape(reason)}</li>"
        yield "</ul>"


def surroundings(context: Context) -> Iterator[str]:
    """The machine, its software and the settings of the run."""
    report = context.report
    machine, quota = report.environment, report.environment.container_quota_cores
    load = machine.state.get("load_average")
    facts = {
        "CPU": f"{machine.cpu} ({', '.join(machine.cpu_features)})",
        "Usable cores": f"{machine.usable_cores}" + ("" if quota is None else f" (container quota {quota:g})"),
        "Memory": size(machine.memory_bytes),
        "Governor": machine.governor or "not readable here",
        "GPU": "; ".join(", ".join(gpu.values()) for gpu in machine.gpus) or "none",
        "System": f"{machine.os}, {machine.architecture}, Python {machine.python}",
        "Packages": ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        "Variables": ", ".join(f"{name}={value}" for name, value in machine.variables.items()),
        "Load before": ", ".join(map(str, load)) if load else "",
        "Settings": ", ".join(f"{name} {value}" for name, value in report.settings.items() if value != ""),
        "Fingerprint": machine.fingerprint,
    }
    yield "<dl>"
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    yield "</dl>"
