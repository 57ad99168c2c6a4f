"""A profile report as Markdown, for pull requests and READMEs."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.profiler.records import ProfileReport
from toolkit.report.rows import STATUS_TITLES, absent, baseline_names, remarks, sections

_HEAD = ("target", "p50 [99 % interval]", "p90", "p99", "time / baseline [99 %]", "verdict")


def as_markdown(report: ProfileReport) -> str:
    """GitHub-flavoured tables, one per model and size."""
    return "\n".join(line for part in (_numbers, _remarks, _absent, _where) for line in part(report)).rstrip() + "\n"


def _numbers(report: ProfileReport) -> Iterator[str]:
    for section in sections(report):
        yield f"### {_escaped(section.title)}"
        yield ""
        yield _line(_HEAD)
        yield _line(("---", "---", "--:", "--:", "---", "---"))
        for row in section.rows:
            yield _line((row.case.target, row.p50, row.p90, row.p99, row.ratio, row.verdict))
        yield ""
    for name in baseline_names(report):
        yield f"Baseline: `{name}`; a ratio below 1 is faster."
        yield ""


def _remarks(report: ProfileReport) -> Iterator[str]:
    found = list(remarks(report))
    if found:
        yield "**Read with care**"
        yield ""
        yield from (f"- `{who}`: {_escaped(text)}" for who, text in found)
        yield ""


def _absent(report: ProfileReport) -> Iterator[str]:
    for status, reasons in absent(report).items():
        yield f"**{STATUS_TITLES[status]}**"
        yield ""
        for reason, concerned in reasons.items():
            yield f"- {', '.join(f'`{who}`' for who in concerned)}: {_escaped(reason)}"
        yield ""


def _where(report: ProfileReport) -> Iterator[str]:
    machine = report.environment
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    yield f"{machine.cpu}, {machine.usable_cores} cores, {machine.os}; {packages}; environment `{machine.fingerprint}`"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
