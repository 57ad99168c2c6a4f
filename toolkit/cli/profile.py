"""``toolkit profile``: latency of every model on every target, side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from toolkit.cli.accuracy import require_data, require_scores, with_accuracy
from toolkit.cli.main import INTERRUPTED, debugging
from toolkit.cli.measuring import measuring
from toolkit.cli.options import data_option, dim_option, say
from toolkit.cli.printing import put
from toolkit.cli.scenarios import parse_scenarios, parse_sweeps, scenario_options, with_exports
from toolkit.errors import ToolkitError, UsageError
from toolkit.files import writable_output, write_atomic
from toolkit.profiler.api import profile as run_profile
from toolkit.profiler.interrupts import interrupts
from toolkit.profiler.reading import read_report
from toolkit.profiler.records import ProfileReport
from toolkit.profiler.resuming import requested
from toolkit.report.formats import FORMATS, format_of

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_budget(text: str, option: str = "--budget") -> float:
    """Seconds in ``30``, ``30s``, ``1.5m`` or ``1h``.

    Raises:
        UsageError: it has another form, or is no positive time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise UsageError("cannot read this time", where=option, got=repr(text), expected="e.g. 30s, 2m")
    return float(match[1]) * _UNITS[match[2]]


def parse_share(text: str, option: str) -> float:
    """0.02 in ``2%`` or ``0.02``.

    Raises:
        UsageError: it has another form, or is no share: 0, or 100 % and more.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)", text.strip())
    share = 0.0 if match is None else float(match[1]) / (100 if match[2] else 1)
    if not 0 < share < 1:
        raise UsageError("cannot read this share", where=option, got=repr(text), expected="e.g. 2%, below 100%")
    return share


def parse_batches(text: str | None) -> tuple[int, ...] | None:
    """Sizes in ``1,8``; None for None.

    Raises:
        UsageError: not a list of positive sizes.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError("cannot read these sizes", where="--batch", got=repr(text), expected="e.g. 1,8")
    return tuple(dict.fromkeys(int(part) for part in parts))


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...")
@click.option(
    "--target", "targets", multiple=True, default=("cpu",), show_default=True,
    help="A name from 'toolkit targets', a TOML file, PROVIDER[:DEVICE], or 'all'; may be repeated.",
)  # fmt: skip
@click.option("--batch", "batches", metavar="SIZES", help="Batch sizes, e.g. 1,8; the models' own by default.")
@dim_option
@scenario_options
@data_option
@click.option("--accuracy", is_flag=True, help="Also score each model on its target with the labelled --data.")
@click.option("--budget", default="30s", show_default=True, help="Time for measuring all cases together: 30s, 2m.")
@click.option(
    "--ci-width", metavar="SHARE",
    help="Stop sooner, once every 99 % interval is this narrow: 2% from end to end.",
)  # fmt: skip
@click.option(
    "--baseline", default="", metavar="NAME",
    help="Target or model to compare with; torch eager, else the first, by default.",
)  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), default=3, show_default=True, help="Fresh processes per case.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of inputs, turns and resampling."
)
@click.option("--operators", is_flag=True, help="Also show where the time goes, in an instrumented run of its own.")
@click.option(
    "--format", "output_format", type=click.Choice(list(FORMATS)), default="table", show_default=True,
    help="How to print the report.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Also write it to a file: .html, .json, .csv, .md or .txt."
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="FILE",
    help="Go on with the run of an earlier .json report, for another --budget.",
)  # fmt: skip
@click.option("--no-history", is_flag=True, help="Do not add the run to 'toolkit history'.")
@click.pass_context
def profile(
    ctx: click.Context,
    models: tuple[str, ...],
    targets: tuple[str, ...],
    batches: str | None,
    dims: dict[str, int],
    scenarios: tuple[str, ...],
    streams: int,
    sweeps: tuple[str, ...],
    machine: Path | None,
    data: Path | None,
    accuracy: bool,
    budget: str,
    ci_width: str | None,
    baseline: str,
    processes: int,
    seed: int,
    operators: bool,
    output_format: str,
    output: Path | None,
    resume: Path | None,
    no_history: bool,
) -> int:
    """Measure latency on every target, side by side.

    MODEL is an ONNX file, a bundle (all its variants), or a source such as
    zoo:NAME, which runs on torch targets. Each model runs on each target in a
    process of its own; they take turns until the budget is spent. Intervals and
    verdicts are at 99 %. With --resume models and options come from the report.
    """
    written_as = None if output is None else format_of(writable_output(output))
    options: dict[str, Any] = {
        "models": models, "targets": targets, "batches": parse_batches(batches), "dims": dims,
        "budget_s": parse_budget(budget), "baseline": baseline, "data": data, "processes": processes, "seed": seed,
        "scenarios": parse_scenarios(scenarios), "streams": streams, "sweeps": parse_sweeps(sweeps), "machine": machine,
        "ci_width": None if ci_width is None else parse_share(ci_width, "--ci-width"),
    }  # fmt: skip
    if resume is not None:
        options = _resumed(ctx, options, resume)
    elif not models:
        raise click.MissingParameter(ctx=ctx, param_hint="'MODEL...'", param_type="argument")
    require_data(accuracy, options["data"])
    with interrupts(command=True):
        with with_exports(options) as wanted, measuring() as on_progress:
            report = run_profile(
                **wanted,
                operators=operators,
                on_progress=on_progress,
                show_output=debugging(),
                history=not no_history,
            )
        if accuracy:
            report = with_accuracy(report, options["models"], options["targets"], options["data"], say)
        if output is not None and written_as is not None:
            # Before it is printed: what a full disk or a slow terminal does must not cost the measurement.
            write_atomic(output, FORMATS[written_as](report))
            say(f"written to {output}")
        put(FORMATS[output_format](report).rstrip())
    return _exit_code(report)


_PARAMETERS = {"budget_s": "budget"}


def _resumed(ctx: click.Context, given: dict[str, Any], path: Path) -> dict[str, Any]:
    """The options of the run in the report at ``path``, but for those that the user gave again."""
    report = read_report(path)
    kept = {
        name: value
        for name, value in requested(report).items()
        if ctx.get_parameter_source(_PARAMETERS.get(name, name)) is not ParameterSource.COMMANDLINE
    }
    return given | kept | {"resume": report}


def _exit_code(report: ProfileReport) -> int:
    """0 when all that could run was measured."""
    if report.interrupted:
        return INTERRUPTED
    failed = [case for case in report.cases if case.status == "failed"]
    if failed:
        what = f"{len(failed)} of {len(report.cases)} cases failed"
        raise ToolkitError(what, where=failed[0].id, got=failed[0].reason)
    if not report.measured:
        first = report.cases[0]
        raise ToolkitError("nothing could be measured", where=first.id, got=first.reason)
    require_scores(report)
    return 0
