"""``toolkit verify``: compare two models on the same inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli.options import data_option, dim_option, emit, format_option, target_option

if TYPE_CHECKING:
    from toolkit.verifier.api import VerifyReport
    from toolkit.verifier.metrics import OutputMetrics

_WIDTH = 80


@click.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@data_option
@dim_option
@target_option
@click.option("--reference-target", default="cpu", show_default=True, help="Where the reference runs.")
@click.option("--samples", type=click.IntRange(min=1), default=32, show_default=True, help="Samples of --data to use.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random inputs.")
@format_option
def verify(
    reference: Path,
    candidate: Path,
    data: Path | None,
    dims: dict[str, int],
    target: str,
    reference_target: str,
    samples: int,
    seed: int,
    output_format: str,
) -> None:
    """Compare CANDIDATE with REFERENCE (ONNX files or bundles), output by output.

    Both run on random inputs at the usual, the smallest and unseen larger sizes
    of every dynamic dim, and on the samples of --data. Exit code 3 when they
    differ by more than the tolerance of the coarser precision.
    """
    from toolkit.verifier.api import verify as compare

    report = compare(
        reference, candidate, data=data, dims=dims, target=target, reference_target=reference_target, samples=samples,
        seed=seed,
    )  # fmt: skip
    emit(report, output_format, lambda: table(report))
    report.require()


def table(report: VerifyReport) -> str:
    """The report for an 80-column terminal: the worst case of each output, then the verdict."""
    limits = report.tolerance
    lines = [
        _fit(f"reference  {report.reference} on {report.reference_target}"),
        _fit(f"candidate  {report.candidate} on {report.target}"),
        f"tolerance  {limits.name}: largest error {limits.max_error:.2g} of the peak, SNR {limits.snr_db:g} dB",
        "",
        f"{'output, worst case':<30}{'max abs':>9}{'max rel':>9}{'cosine':>10}{'SNR dB':>9}{'top-1':>8}",
        *map(_row, report.worst()),
        "",
        _fit(f"{len(report.cases)} cases: {', '.join(case.label for case in report.cases)}"),
        *(_fit(f"skipped {label}: {why}") for label, why in report.skipped.items()),
        *report.notes,
        "passed" if report.passed else f"FAILED: {report.reason}",
    ]
    return "\n".join(lines)


def _row(item: OutputMetrics) -> str:
    name = _fit(item.name, 29)
    if not item.comparable or not item.is_float:
        return f"{name:<30}{item.dtype} {list(item.shape)}, {item.mismatches} of {item.elements} differ"
    top1 = "" if item.top1_agreement is None else f"{item.top1_agreement:.1%}"
    snr = "equal" if item.max_abs == 0 else f"{item.snr_db:.1f}"
    return f"{name:<30}{item.max_abs:>9.2g}{item.max_rel:>9.2g}{item.cosine:>10.6f}{snr:>9}{top1:>8}"


def _fit(text: str, width: int = _WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
