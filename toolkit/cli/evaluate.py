"""``toolkit evaluate``: a model's quality on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli.options import emit, format_option, progress, target_option

if TYPE_CHECKING:
    from toolkit.evaluator.report import EvaluationReport

_WIDTH = 80
# A confusion matrix wider than this does not fit the terminal; JSON has it whole.
_MAX_CLASSES = 10


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Labelled samples: .npz, a folder of .npy or images, IDX (docs/data.md).")
@target_option
@click.option("--task", help="What to score, e.g. classification, text-generation, image-to-image.")
@click.option("--top-k", default="1,5", show_default=True, metavar="K,K…", help="For classification.")
@click.option("--metric", metavar="MODULE:FUNCTION", help="A metric of your own: (outputs, labels) to a number.")
@click.option("--scored-output", "output", help="Which output to score.")
@click.option("--preprocessing", type=click.Path(path_type=Path), help="JSON to use instead of what is recorded.")
@click.option(
    "--batch", "batch_size", type=click.IntRange(min=1), default=32, show_default=True, help="Samples per run."
)
@click.option("--limit", type=click.IntRange(min=1), help="Use only the first samples.")
@click.option("--peak", type=float, help="Largest value of an image, for PSNR (255 for integer labels, else 1).")
@format_option
def evaluate(
    model: Path,
    data: str,
    target: str,
    task: str | None,
    top_k: str,
    metric: str | None,
    output: str | None,
    preprocessing: Path | None,
    batch_size: int,
    limit: int | None,
    peak: float | None,
    output_format: str,
) -> None:
    """Run MODEL (a bundle or an .onnx file) on labelled data and score it."""
    from toolkit.evaluator.api import evaluate as score

    with progress("samples") as advance:
        report = score(
            model, data, target=target, task=task, top_k=_top_k(top_k), metric=metric, output=output,
            preprocessing=preprocessing, batch_size=batch_size, limit=limit, peak=peak, progress=advance,
        )  # fmt: skip
    emit(report, output_format, lambda: table(report))


def _top_k(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"got {text!r}; expected numbers, e.g. 1,5", param_hint="--top-k")
    return tuple(map(int, parts))


def table(report: EvaluationReport) -> str:
    """The report for an 80-column terminal: metrics with intervals, then classes, then confusions."""
    lines = [
        _fit(f"model   {report.model} on {report.target}"),
        _fit(f"data    {report.data}, {report.samples} samples"),
        f"task    {report.task}",
        "",
        f"{'metric':<22}{'value':>10}   95 % interval",
        *(_metric(name, value, report.intervals.get(name)) for name, value in report.metrics.items()),
    ]
    if report.errors is not None:
        lines += ["", f"{report.errors} wrong"]
    if 0 < len(report.per_class) <= _MAX_CLASSES * 2:
        lines += ["", f"{'class':<22}{'precision':>10}{'recall':>10}{'F1':>10}{'samples':>10}"]
        lines += [
            f"{_fit(item.label, 21):<22}{item.precision:>10.4f}{item.recall:>10.4f}{item.f1:>10.4f}{item.support:>10}"
            for item in report.per_class
        ]
    if report.confusion is not None and len(report.confusion) <= _MAX_CLASSES:
        lines += ["", *_confusion(report)]
    return "\n".join([*lines, *(_fit(f"note: {note}") for note in report.notes)])


def _metric(name: str, value: float, interval: tuple[float, float] | None) -> str:
    bounds = "" if interval is None else f"   {interval[0]:.4f} … {interval[1]:.4f}"
    number = f"{value:.0f}" if name == "tokens" else f"{value:.4f}"
    return f"{name:<22}{number:>10}{bounds}"


def _confusion(report: EvaluationReport) -> list[str]:
    assert report.confusion is not None
    names = [
        report.labels[index] if index < len(report.labels) else str(index) for index in range(len(report.confusion))
    ]
    header = "true \\ predicted".ljust(18) + "".join(_fit(name, 5).rjust(6) for name in names)
    rows = (
        _fit(name, 17).ljust(18) + "".join(f"{count:>6}" for count in row)
        for name, row in zip(names, report.confusion, strict=True)
    )
    return [header, *rows]


def _fit(text: str, width: int = _WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
