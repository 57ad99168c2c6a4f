"""``toolkit optimize``: a smaller graph of standard operators that computes the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli.layout import columns, paragraph, rows
from toolkit.cli.options import data_option, dim_option, emit, format_option, output_option, progress, target_option
from toolkit.errors import UsageError
from toolkit.tensors import parse_dims

if TYPE_CHECKING:
    from toolkit.optimizer.api import OptimizeReport
    from toolkit.verifier.api import VerifyReport


def _renames(_: click.Context, __: click.Parameter, items: Iterable[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for item in items:
        old, separator, new = item.partition("=")
        if not separator or not old or not new:
            raise UsageError("cannot read this rename", where="--rename-dim", got=repr(item), expected="OLD=NEW")
        names[old] = new
    return names


def _sizes(_: click.Context, __: click.Parameter, items: Iterable[str]) -> dict[str, int]:
    return parse_dims(items)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@output_option
@dim_option
@click.option(
    "--rename-dim", "rename", multiple=True, callback=_renames, metavar="OLD=NEW", help="Rename a dynamic dim."
)
@click.option("--opset", type=int, help="Rewrite the model for a newer opset.")
@click.option("--skip", multiple=True, metavar="PASS", help="Leave out a pass; may be repeated.")
@click.option(
    "--check-dim",
    "check_dims",
    multiple=True,
    callback=_sizes,
    metavar="NAME=SIZE",
    help="Size to verify at, for a model that runs at few; the dim stays dynamic.",
)
@data_option
@target_option
@click.option("--no-check", is_flag=True, help="Do not verify the result.")
@format_option
def optimize(
    model: Path,
    output: Path,
    dims: dict[str, int],
    rename: dict[str, str],
    opset: int | None,
    skip: tuple[str, ...],
    check_dims: dict[str, int],
    data: Path | None,
    target: str,
    no_check: bool,
    output_format: str,
) -> None:
    """Simplify MODEL (an ONNX file) and prove that the result computes the same.

    Standard operators only, so every engine reads the result. --dim fixes a
    named dim at a size. When the result differs from MODEL by more than
    rounding, nothing is written, the pass at fault is named, and the exit code
    is 3.
    """
    from toolkit.optimizer.api import optimize as run

    with progress("optimizing") as advance:
        report = run(
            model, output, dims=dims, rename=rename, opset=opset, skip=skip, check=not no_check, check_dims=check_dims,
            data=data, target=target, progress=lambda name: advance(1, description=name),
        )  # fmt: skip
    emit(report, output_format, lambda: table(report))


def table(report: OptimizeReport) -> str:
    """The report for an 80-column terminal."""
    lines = rows(
        [
            ("model", report.source),
            ("written", report.output),
            ("nodes", f"{report.nodes_before} → {report.nodes_after}"),
            ("size", f"{report.size_bytes_before:,} → {report.size_bytes_after:,} bytes"),
            ("opset", _change(report.opset_before, report.opset_after)),
            ("verified", _verified(report.verification)),
        ]
    )
    done = [(item.name, str(item.changed), f"{item.ms:.1f}") for item in report.passes if item.changed]
    lines += ["", *columns([("PASS", "CHANGED", "MS"), *done])] if done else ["", "No pass found anything to change."]
    for note in report.notes:
        lines += paragraph(note, "")
    for item in report.passes:
        for reason, count in item.skipped.items():
            lines += paragraph(f"{item.name}: {reason}{f' ({count} times)' if count > 1 else ''}", "")
    return "\n".join(lines)


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} → {after}"


def _verified(found: VerifyReport | None) -> str:
    if found is None:
        return "no (--no-check)"
    labels = ", ".join(case.label for case in found.cases)
    worst = min((item.snr_db for item in found.worst() if item.is_float), default=float("inf"))
    error = "equal to the last bit" if worst == float("inf") else f"SNR {worst:.0f} dB at the worst"
    skipped = f"; the model itself does not run at: {', '.join(found.skipped)}" if found.skipped else ""
    sizes = "1 size" if len(found.cases) == 1 else f"{len(found.cases)} sizes"
    return f"on {found.target} at {sizes} ({labels}): {error}{skipped}"
