"""``toolkit export``: a PyTorch model into ONNX, checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli.main import debugging
from toolkit.cli.options import emit, format_option, output_option, say

if TYPE_CHECKING:
    from toolkit.exporter.report import ExportReport

_WIDTH = 80


@click.command()
@click.argument("source")
@output_option
@click.option("--weights", type=click.Path(path_type=Path), help="A checkpoint: .safetensors, .pth, .th, .ckpt, .pt.")
@click.option("--weights-key", metavar="KEY", help="Where in the checkpoint the weights are, e.g. state_dict.")
@click.option("--task", metavar="TASK", help="What the model is for; picks the head of a Hugging Face model.")
@click.option(
    "--input", "inputs", multiple=True, metavar="SPEC",
    help="NAME:DTYPE[DIM,…], e.g. 'ids:int64[batch,seq]=0..511'; once per input, where the source does not say.",
)  # fmt: skip
@click.option("--opset", type=int, help="Opset of the file, 18 or newer.  [default: torch's, 20]")
@click.option("--trust", is_flag=True, help="Open sources that are code by nature (.pt2).")
@format_option
def export(
    source: str,
    output: Path,
    weights: Path | None,
    weights_key: str | None,
    task: str | None,
    inputs: tuple[str, ...],
    opset: int | None,
    trust: bool,
    output_format: str,
) -> None:
    """Turn SOURCE into an ONNX file that was shown to compute the same.

    SOURCE is zoo:NAME, PACKAGE.MODULE:FACTORY, FILE.py:FACTORY, a .pt2 file, a
    local Hugging Face folder or an .onnx file. Dims with names stay dynamic.
    Exit code 3, and no file, when what the module computes cannot be kept.
    """
    from toolkit.exporter.api import export as run

    report = run(
        source, list(inputs) or None, output, weights=weights, weights_key=weights_key, task=task, opset=opset,
        trust=trust, debug=debugging(), progress=_progress,
    )  # fmt: skip
    emit(report, output_format, lambda: table(report))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        say(f"… {text}")


def table(report: ExportReport) -> str:
    """The report for an 80-column terminal."""
    lines = [
        f"{report.output}  {_size(report.size_bytes)}, {report.parameters:,} parameters, opset {report.opset}",
        *(f"input      {spec}" for spec in report.inputs),
        *(f"output     {spec}" for spec in report.outputs),
        f"made with  {report.strategy}",
        *(f"not with   {item.strategy}: {item.reason}" for item in report.attempts if item.reason),
    ]
    if report.cases:
        labels = ", ".join(case.label for case in report.cases)
        lines += [
            f"reference  torch in {report.reference}; the graph ran on {report.engine}",
            f"allowed    {report.tolerance}",
            f"error      {report.worst_ratio:.0%} of that at most, in {len(report.cases)} cases: {labels}",
        ]
    lines += [f"also       {name}" for name in report.files]
    lines += [f"note       {note}" for note in report.notes]
    return "\n".join(_wrapped(line) for line in lines)


def _wrapped(line: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(line, _WIDTH, subsequent_indent=" " * 11, break_on_hyphens=False)) or line


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.2f} MB"
