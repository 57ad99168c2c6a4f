"""``toolkit demo``: the whole chain on four small models, with one table at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli.options import emit, progress, say

if TYPE_CHECKING:
    from toolkit.cli.demo_chain import Demo, File, Row

# Below these the training went wrong; what the models reach is in the table.
MINIMUM_ACCURACY = {"fcnn": 0.95, "cnn": 0.95, "rnn": 0.95, "transformer": 0.93}
_STEPS = 4 * 7
# Beyond this the paired ratio and the two p50s may well say different things.
_WIDE = 2.0


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True,
    help="Folder for models, bundles and the report; made anew.",
)  # fmt: skip
@click.option("--budget", default=50.0, show_default=True, help="Seconds of measuring for all models together.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def demo(output: Path, budget: float, output_format: str) -> None:
    """Train four small models on bundled digits and take them through the chain:
    export, optimize, quantize, verify, evaluate, profile, bundle, load.
    """
    result = _run(output, budget)
    emit(result, output_format, lambda: table(result))


def _run(output: Path, budget: float) -> Demo:
    from toolkit.cli import demo_chain as chain
    from toolkit.cli.measuring import measuring

    output = _fresh_folder(output)
    targets, missing = chain.available_targets()
    with progress("preparing the digits", _STEPS) as advance:
        tell = _sayer(advance)
        splits = chain.write_splits(output / "digits")
        files: list[File] = []
        torch_accuracy: dict[str, float] = {}
        for short in chain.MODELS:
            folder = output / short
            folder.mkdir()
            torch_accuracy[short] = chain.train(short, folder, splits, tell)
            advance(2)
            made = chain.make_files(short, folder, splits["calibration"], targets, tell)
            advance(3)
            files += [chain.with_accuracy(file, splits["test"], tell) for file in made]
            advance(2)
    _tell(f"measuring for {budget:g} s")
    with measuring() as on_progress:
        report = chain.measure(files, budget, on_progress)
    rows = chain.rows_of(files, torch_accuracy, report)
    chain.check_accuracy(rows, MINIMUM_ACCURACY)
    bundles = {
        short: chain.make_bundle(
            short, output, [f for f in files if f.model == short], [r for r in rows if r.model == short], report
        )
        for short in chain.MODELS
    }
    page = chain.write_report(output / "report.html", report)
    _tell("classifying in a process without torch")
    fresh = chain.classify_in_fresh_process(bundles["cnn"], splits["test"])
    return chain.Demo(
        rows, torch_accuracy, missing, {name: str(path) for name, path in bundles.items()}, fresh, str(page)
    )


def _sayer(advance: Callable[..., None]) -> Callable[[str], None]:
    """Shows what is being done: on the bar, or where there is no terminal as lines, one per step and not per epoch."""
    said: set[str] = set()

    def show(text: str) -> None:
        advance(0, text)
        step = text.partition(",")[0]
        if step not in said:
            said.add(step)
            _tell(step)

    return show


def _tell(text: str) -> None:
    """A line on stderr where no bar can be seen."""
    if not sys.stderr.isatty():
        say(text)


def _fresh_folder(output: Path) -> Path:
    """Make ``output``; a folder that an earlier demo made is replaced, anything else is left alone."""
    import shutil

    from toolkit.errors import FileProblem

    marker = output / ".toolkit-demo"
    if marker.is_file():
        shutil.rmtree(output)
    if output.exists():
        raise FileProblem("something else is there", where=output, next_step="name another folder with -o")
    try:
        output.mkdir()
        marker.touch()
    except OSError as exc:
        raise FileProblem("the folder cannot be made", where=output, got=exc.strerror) from exc
    return output


def table(result: Demo) -> str:
    """The demo's table, 80 columns wide, and what could not be run."""
    from toolkit.report.columns import columns, note

    head = ("model", "target", "prec", "acc%", "size", "p50", "p99", "× eager [99 %]", "verdict")
    lines = columns([head, *map(_cells, result.rows)], right=(3, 4, 5, 6))
    lines += [
        "",
        "* kept: float, or int8 where it is surely faster and loses at most 1 point",
        "× eager: time over torch eager's; below 1 is faster",
    ]
    wide = [f"{row.model} on {row.target}" for row in result.rows if _is_wide(row)]
    if wide:
        lines += note(f"read with care: × eager is uncertain by more than a factor of {_WIDE:g} for {', '.join(wide)}")
    withheld = {row.p99_withheld: f"{row.model} on {row.target}" for row in result.rows if row.p99_withheld}
    lines += [line for why, case in withheld.items() for line in note(f"no p99 for {case}: {why}")]
    if result.unavailable:
        lines += ["not available here:"]
        reasons: dict[str, list[str]] = {}
        for name, why in result.unavailable.items():
            reasons.setdefault(why, []).append(name)
        lines += [line for why, names in reasons.items() for line in note(f"{', '.join(names)}: {why}")]
    fresh = result.fresh_process
    lines += [
        "",
        f"without torch: {fresh['bundle']} on {fresh['provider']}: {fresh['right']} of {fresh['images']} images right,",
        f"  first ten {''.join(fresh['first'])}, truth {''.join(map(str, fresh['truth']))}",
        f"report: {result.report}",
    ]
    return "\n".join(lines)


def _is_wide(row: Row) -> bool:
    return row.ratio_ci is not None and row.ratio_ci[1] > _WIDE * row.ratio_ci[0]


_VERDICTS = {"no significant difference": "same", "baseline": "base"}
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def _cells(row: Row) -> Sequence[str]:
    from toolkit.report.numbers import duration, ratio_with_interval, size

    return (
        row.model,
        row.target.partition("-")[0] + ("*" if row.kept else ""),
        _PRECISIONS.get(row.precision, row.precision),
        "–" if row.accuracy is None else f"{100 * row.accuracy:.1f}",
        "–" if row.size_bytes is None else size(row.size_bytes),
        "–" if row.p50_ns is None else duration(row.p50_ns),
        "–" if row.p99_ns is None else duration(row.p99_ns),
        "–" if row.ratio is None else ratio_with_interval(row.ratio, row.ratio_ci),
        _VERDICTS.get(row.verdict, row.verdict),
    )
