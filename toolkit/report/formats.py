"""The formats a profile report can be written in, by name and by file suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.profiler.records import ProfileReport
from toolkit.report.csv_ import as_csv
from toolkit.report.html import as_html
from toolkit.report.markdown import as_markdown
from toolkit.report.table import table


def as_json(report: ProfileReport) -> str:
    """The report as it is, raw samples and all, without line breaks: there can be a million samples."""
    return report.to_json().decode()


FORMATS: Mapping[str, Callable[[ProfileReport], str]] = {
    "table": table,
    "json": as_json,
    "csv": as_csv,
    "markdown": as_markdown,
    "html": as_html,
}
SUFFIXES: Mapping[str, str] = {
    ".txt": "table", ".json": "json", ".csv": "csv", ".md": "markdown", ".html": "html", ".htm": "html",
}  # fmt: skip


def format_of(path: Path) -> str:
    """The format that a file's suffix asks for.

    Raises:
        UsageError: it asks for none that there is.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError("the suffix names no format", where=path, expected=f"one of: {', '.join(SUFFIXES)}")
    return SUFFIXES[path.suffix.lower()]
