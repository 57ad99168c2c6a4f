"""``toolkit history``: what was measured on this machine, when, and how it went over time."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from toolkit.cli.options import emit, say
from toolkit.cli.printing import put
from toolkit.errors import UsageError
from toolkit.profiler.history import LARGEST_RUN, Entry, history_path, open_history
from toolkit.profiler.reading import read_report
from toolkit.profiler.records import ProfileReport
from toolkit.report.formats import FORMATS
from toolkit.report.history import entries_csv, entries_table, trend

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def parse_moment(text: str | None, option: str) -> str:
    """The moment that ``2026-11-25``, ``2026-11-25T14:00`` (UTC) or ``7d`` (ago; h, d, w) means, as ISO 8601 in UTC.

    Raises:
        UsageError: it has another form.
    """
    if not text:
        return ""
    ago = re.fullmatch(r"(\d{1,6})([hdw])", text.strip())
    try:
        if ago:
            moment = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text.strip())
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise UsageError(
            "cannot read this time", where=option, got=repr(text), expected="e.g. 2026-11-25 or 7d"
        ) from exc
    return moment.isoformat(timespec="seconds")


def place() -> Path | None:
    """The history's file; None where there is none yet.

    Raises:
        UsageError: histories are switched off.
    """
    path = history_path()
    if path is None:
        raise UsageError("no history is kept here", where="TOOLKIT_HISTORY", got="off")
    return path if path.exists() else None


def report_of(text: str) -> ProfileReport:
    """The report in a file, or of a run of the history where ``text`` is its number.

    Raises:
        UsageError: there is no such file or run, or it cannot be read.
    """
    run = _run_number(text)
    if run is None:
        return read_report(text)
    path = place()
    if path is None:
        raise UsageError("the history is empty", got=f"run {text}", next_step="toolkit profile MODEL records one")
    with open_history(path) as opened:
        return opened.report(run)


def _run_number(text: str) -> int | None:
    """The number of a run; None where ``text`` is none, or names a file."""
    if not text.isdecimal():
        return None
    if len(text) > len(str(LARGEST_RUN)):
        raise UsageError(
            "the history has no such run", got=text[:24] + "…" * (len(text) > 24), expected=f"up to {LARGEST_RUN}"
        )
    return None if Path(text).exists() else int(text)


def _entries(model: str, target: str, since: str | None, limit: int | None) -> list[Entry]:
    path = place()
    if path is None:
        return []
    with open_history(path) as opened:
        return opened.entries(model=model, target=target, since=parse_moment(since, "--since"), limit=limit)


_since = click.option("--since", metavar="TIME", help="Runs since then: 2026-11-25 (UTC), or 7d ago (h, d, w).")
_limit = click.option(
    "--limit", type=click.IntRange(min=1, max=LARGEST_RUN), default=20, show_default=True, help="Newest runs only."
)
_format = click.option(
    "--format", "output_format", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
    help="How to print the result.",
)  # fmt: skip


@click.group(invoke_without_command=True)
@click.option("--model", default="", metavar="NAME", help="A model's name, or the first digits of its hash.")
@click.option("--target", default="", metavar="NAME", help="One target only.")
@_since
@_limit
@_format
@click.pass_context
def history(ctx: click.Context, model: str, target: str, since: str | None, limit: int, output_format: str) -> None:
    """List what 'toolkit profile' measured; every run is kept unless --no-history.

    The file is $TOOLKIT_HISTORY, else history.sqlite in the user's data folder;
    TOOLKIT_HISTORY=off keeps none.
    """
    if ctx.invoked_subcommand is None:
        _print(_entries(model, target, since, limit), output_format, entries_table)


def _print(found: list[Entry], output_format: str, table: Callable[[list[Entry]], str]) -> None:
    if output_format == "csv":
        put(entries_csv(found), newline=False)
    else:
        emit({"entries": found}, output_format, lambda: table(found))


@history.command()
@click.argument("run", type=click.IntRange(min=1, max=LARGEST_RUN))
@click.option(
    "--format", "output_format", type=click.Choice(list(FORMATS)), default="table", show_default=True,
    help="How to print the report.",
)  # fmt: skip
def show(run: int, output_format: str) -> None:
    """Print the report of one RUN again, computed then."""
    put(FORMATS[output_format](report_of(str(run))).rstrip())


@history.command(name="trend")
@click.argument("model")
@click.option("--target", default="", metavar="NAME", help="One target only.")
@_since
@_limit
@_format
def trend_(model: str, target: str, since: str | None, limit: int, output_format: str) -> None:
    """Plot MODEL's latency over its runs, the oldest first, each environment for itself.

    MODEL is a name or the first digits of a hash.
    """
    found = sorted(_entries(model, target, since, limit), key=lambda item: item.run)
    _print(found, output_format, trend)


@history.command()
@click.option("--keep", type=click.IntRange(min=0, max=LARGEST_RUN), help="Delete all but the newest so many runs.")
@click.option("--before", metavar="TIME", help="Delete runs from before then: 2026-11-25 (UTC), or 90d ago (h, d, w).")
def prune(keep: int | None, before: str | None) -> None:
    """Delete old runs and give their space back."""
    if keep is None and before is None:
        raise UsageError("nothing says what to delete", expected="--keep N or --before TIME")
    path, moment = place(), parse_moment(before, "--before")
    count = 0
    if path is not None:
        with open_history(path) as opened:
            count = opened.prune(keep=keep, before=moment)
    say(f"{count} run{'s' * (count != 1)} deleted")
