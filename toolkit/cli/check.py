"""``toolkit check``: fail a build when a model got slower than allowed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from toolkit.cli.history import report_of
from toolkit.cli.main import INTERRUPTED, debugging
from toolkit.cli.measuring import measuring
from toolkit.cli.options import data_option, dim_option, emit, format_option, say
from toolkit.cli.profile import parse_batches, parse_budget
from toolkit.errors import FileProblem, RegressionError, ToolkitError, UsageError
from toolkit.files import writable_output, write_atomic
from toolkit.profiler.checking import Effort, check_against, check_models
from toolkit.profiler.history import record_run
from toolkit.profiler.interrupts import interrupts
from toolkit.profiler.judging import CheckReport
from toolkit.report.check_summaries import described, github_annotations, github_summary, junit
from toolkit.report.comparison import check_table

_STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def parse_slowdown(text: str) -> float:
    """The share in ``5%`` or ``0.5%``; nothing may be read as another share, so that 0 alone needs no sign.

    Raises:
        UsageError: it has another form, or is below 0.
    """
    match = re.fullmatch(r"(0|\d{1,6}(?:\.\d+)?\s*(?=%))%?", text.strip())
    if match is None:
        raise UsageError("cannot read this share", where="--max-slowdown", got=repr(text), expected="e.g. 5%, or 0%")
    return float(match[1]) / 100


def parse_effort(first: str | None, most: str | None) -> Effort:
    """How much time may be spent at first, and in all; one that is None follows the other.

    Raises:
        UsageError: one is no time, or the first is more than the second.
    """
    usual = Effort()
    most_s = usual.max_budget_s if most is None else parse_budget(most, "--max-budget")
    first_s = min(usual.budget_s, most_s) if first is None else parse_budget(first)
    most_s = max(first_s, most_s) if most is None else most_s
    if first_s > most_s:
        raise UsageError(
            "less time in all than at first", where="--max-budget", got=most, expected=f"--budget {first} or more"
        )
    return Effort(budget_s=first_s, max_budget_s=most_s)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="[OLD] NEW")
@click.option("--max-slowdown", required=True, metavar="SHARE", help="How much slower NEW may be: 5%.")
@click.option("--baseline", metavar="FILE", help="Hold NEW against a record: JSON, or a run number of the history.")
@click.option("--across-environments", is_flag=True, help="Hold it even against another machine's record.")
@click.option(
    "--target", "targets", multiple=True,
    help="As for 'toolkit profile'; may be repeated. By default cpu, or those of the record.",
)  # fmt: skip
@click.option("--batch", "batches", metavar="SIZES", help="Batch sizes, e.g. 1,8; the models' own by default.")
@dim_option
@data_option
@click.option("--budget", show_default="30s", help="Time for measuring at first.")
@click.option(
    "--max-budget", show_default="2m, or --budget", help="Time in all; doubled up to it while in doubt.",
)  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), default=3, show_default=True, help="Fresh processes per case.")
@click.option(
    "--on-inconclusive", type=click.Choice(["fail", "warn"]), default="fail", show_default=True,
    help="What doubt means when the time is spent.",
)  # fmt: skip
@click.option("--summary", "summary_kind", type=click.Choice(["junit", "github"]), help="Also write a summary for CI.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where --summary is written.")
@click.option("--no-history", is_flag=True, help="Do not add the run to the history.")
@format_option
def check(
    models: tuple[str, ...],
    max_slowdown: str,
    baseline: str | None,
    across_environments: bool,
    targets: tuple[str, ...],
    batches: str | None,
    dims: dict[str, int],
    data: Path | None,
    budget: str | None,
    max_budget: str | None,
    processes: int,
    on_inconclusive: str,
    summary_kind: str | None,
    output: Path | None,
    no_history: bool,
    output_format: str,
) -> int:
    """Fail when NEW is slower than allowed: exit code 3.

    OLD and NEW are measured in one interleaved run. With --baseline NEW is
    measured as the record was and held against it, which is coarser. While the
    99 % interval of the ratio holds the limit, more time is spent.
    --summary github appends to $GITHUB_STEP_SUMMARY and prints annotations.
    """
    share = parse_slowdown(max_slowdown)
    effort = parse_effort(budget, max_budget)
    _check_arguments(models, baseline, summary_kind, output)
    options: dict[str, Any] = {
        "batches": parse_batches(batches), "dims": dims, "data": data, "processes": processes,
        "show_output": debugging(),
    }  # fmt: skip
    with interrupts(command=True):
        with measuring() as on_progress:
            options["on_progress"] = on_progress
            if baseline is None:
                found, report = check_models(
                    models[0], models[1], max_slowdown=share, targets=targets or ("cpu",), effort=effort, **options
                )
            else:
                stored = report_of(baseline)
                found, report = check_against(
                    models[0], stored, max_slowdown=share, targets=targets, effort=effort, across=across_environments,
                    **options,
                )  # fmt: skip
        # What is kept comes before what is printed, which a full disk or a slow terminal may end.
        record_run(report, not no_history)
        try:
            _summarize(found, summary_kind, output, on_inconclusive == "warn")
        finally:
            emit(found, output_format, lambda: check_table(found))
    return _exit_code(found, on_inconclusive)


def _check_arguments(models: tuple[str, ...], baseline: str | None, summary: str | None, output: Path | None) -> None:
    """Refuse what makes no sense before any time is spent on it."""
    wanted = 2 if baseline is None else 1
    if len(models) != wanted:
        expected = "OLD and NEW" if baseline is None else "NEW alone, since --baseline stands for the old one"
        raise UsageError("the wrong number of models", got=len(models), expected=expected)
    if output is not None:
        writable_output(output)
    if output is not None and summary is None:
        raise UsageError("nothing says what to write", where="-o", expected="--summary junit or github")
    if summary is not None and output is None and not (summary == "github" and os.environ.get(_STEP_SUMMARY)):
        raise UsageError("the summary needs a file", where="--summary", next_step="give -o FILE")


def _summarize(found: CheckReport, kind: str | None, output: Path | None, tolerate_doubt: bool) -> None:
    if kind is None:
        return
    text = junit(found, tolerate_doubt=tolerate_doubt) if kind == "junit" else github_summary(found)
    if output is not None:
        write_atomic(output, text)
        say(f"written to {output}")
    if kind == "github":
        _append_step_summary(text)
        for line in github_annotations(found, tolerate_doubt=tolerate_doubt):
            say(line)


def _append_step_summary(text: str) -> None:
    """To the file that GitHub gives each step, which several commands of one step share."""
    named = os.environ.get(_STEP_SUMMARY)
    if not named:
        return
    try:
        with Path(named).open("a", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as exc:
        raise FileProblem("the step summary cannot be written", where=named, got=exc.strerror) from exc


def _exit_code(found: CheckReport, on_inconclusive: str) -> int:
    """0 only when every case was measured and passed, or doubt is tolerated."""
    if found.interrupted:
        return INTERRUPTED
    bad = next((case for case in found.cases if case.answer == found.answer), None)
    if found.answer == "passed":
        return 0
    if bad is None or found.answer == "not measured":
        reason = bad.reason if bad else "nothing was measured"
        where = (bad.new or bad.old) if bad else None
        raise ToolkitError("not everything was measured, so the check cannot pass", where=where, got=reason)
    text = described(bad, found.limit)
    if found.answer == "inconclusive" and on_inconclusive == "warn":
        say(f"warning: {bad.new}: {text}")
        return 0
    more = "give it more --max-budget" if found.answer == "inconclusive" else None
    raise RegressionError(f"the check failed: {text}", where=bad.new, next_step=more)
