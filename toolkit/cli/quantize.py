"""``toolkit quantize``: a narrower model for one target, checked, or no file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.options import emit, format_option, output_option, progress, target_option
from toolkit.errors import UsageError
from toolkit.quantizer.choices import BITS, METHODS, OBSERVERS

if TYPE_CHECKING:
    from toolkit.quantizer.report import QuantizeReport, Trial

_WIDTH = 80
_ROUNDINGS, _PRECISE_DB = 3, 35.0  # tensors to name, and those that nobody needs to hear of
_UNITS = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@output_option
@target_option
@click.option("--method", type=click.Choice(METHODS), default="auto", show_default=True, help="auto measures them all.")
@click.option("--bits", type=click.Choice(BITS), default=8, show_default=True, help="Of weight-only.")
@click.option("--observer", type=click.Choice(OBSERVERS), default="minmax", show_default=True, help="Ranges of static.")
@click.option("--placement", default="", help="A variant of the provider's placement table; its first by default.")
@click.option("--calibration", metavar="DATA|RECORD.json", help="Samples for static int8, or what they once gave.")
@click.option("--samples", type=click.IntRange(min=1), help="Calibrate on the first so many samples.")
@click.option("--record", type=click.Path(path_type=Path), help="Write what calibration saw, to be used again.")
@click.option("--memory-limit", metavar="SIZE", help="For tensors that calibration looks at in one run, e.g. 512MB.")
@click.option("--data", help="Samples to judge by; with labels, accuracy decides (docs/data.md).")
@click.option("--max-drop", type=float, default=1.0, show_default=True, help="Points of accuracy that may be lost.")
@click.option("--state", "pairs", multiple=True, metavar="IN=OUT", help="An input that is fed the last step's output.")
@click.option("--keep-float", multiple=True, metavar="NODE", help="A node to leave out of static; may be repeated.")
@format_option
def quantize(source: Path, output: Path, target: str, output_format: str, **options: Any) -> None:
    """Lower the precision of SOURCE (a float ONNX file) for one target.

    The result is compared with SOURCE and written only if it passes. "auto"
    keeps what is measured faster on the target within the accuracy budget, and
    the float model where nothing is.
    """
    from toolkit.quantizer.api import quantize as lower

    pairs, memory_limit = options.pop("pairs"), options.pop("memory_limit")
    with progress("quantizing") as advance:
        report = lower(
            source, output, target=target,
            keep_float=tuple(options.pop("keep_float")), state=parse_pairs(pairs),
            memory_limit_bytes=None if memory_limit is None else parse_size(memory_limit),
            progress=lambda text: advance(0, text), **options,
        )  # fmt: skip
    emit(report, output_format, lambda: table(report))


def parse_pairs(items: tuple[str, ...]) -> dict[str, str]:
    """Read ``input=output`` items.

    Raises:
        UsageError: an item has another form.
    """
    pairs: dict[str, str] = {}
    for item in items:
        name, separator, output = item.partition("=")
        if not separator or not name.strip() or not output.strip():
            raise UsageError("cannot read this state pair", where="--state", got=repr(item), expected="INPUT=OUTPUT")
        pairs[name.strip()] = output.strip()
    return pairs


def parse_size(text: str) -> int:
    """Read ``512MB`` or ``2GB`` as bytes.

    Raises:
        UsageError: the text has another form.
    """
    number = text.strip().lower().rstrip("bkmg")
    unit = text.strip().lower()[len(number) :]
    try:
        return max(1, int(float(number) * _UNITS[unit]))
    except (ValueError, KeyError, OverflowError) as exc:
        raise UsageError(
            "cannot read this size", where="--memory-limit", got=repr(text), expected="e.g. 512MB"
        ) from exc


def table(report: QuantizeReport) -> str:
    """The report for an 80-column terminal."""
    lines = [
        f"{report.method}: {_megabytes(report.size_bytes_after)} MB instead of {_megabytes(report.size_bytes_before)}",
        f"target {report.target}, checked on {report.checked_on}",
    ]
    if report.calibration_samples:
        lines.append(f"calibrated on {report.calibration_samples} samples of {report.calibration}")
    if report.opset_after != report.opset_before:
        lines.append(f"opset {report.opset_before} to {report.opset_after}")
    if report.quantized:
        lines.append("narrowed: " + ", ".join(f"{count} {name}" for name, count in report.quantized.items()))
    lines += _left(report)
    lines += [_rounding(item) for item in report.roundings[:_ROUNDINGS] if item.snr_db < _PRECISE_DB]
    lines += [_output(item) for item in report.outputs]
    if report.accuracy is not None:
        lines.append(_accuracy(report))
    if report.speed is not None:
        lines.append(f"speed: {_ratio(report)} of the float model's time, {report.speed.verdict}")
    if report.candidates:
        lines += [
            "",
            f"{'candidate':<28}{'MB':>8}{'SNR dB':>8}{'drop':>7}{'time':>7}  verdict",
            *map(_trial, report.candidates),
        ]
    whole = [*(f"note: {note}" for note in report.notes), f"wrote {report.output}"]
    return "\n".join([*(_fit(line) for line in lines), *whole])


def _left(report: QuantizeReport) -> list[str]:
    reasons = Counter((item.operator, item.reason) for item in report.left)
    return [f"left in float: {count} {operator}: {reason}" for (operator, reason), count in reasons.most_common(8)]


def _rounding(item: Any) -> str:
    readers = f", read by {', '.join(item.nodes[:2])}" if item.nodes else ""
    return f"least precise: {item.tensor}, {item.snr_db:.1f} dB{readers}"


def _output(item: Any) -> str:
    if not item.is_float:
        return f"output {item.name}: {item.mismatches} of {item.elements} elements differ"
    top1 = "" if item.top1_agreement is None else f", top-1 agreement {item.top1_agreement:.1%}"
    return f"output {item.name}: SNR {item.snr_db:.1f} dB{top1}"


def _accuracy(report: QuantizeReport) -> str:
    found = report.accuracy
    assert found is not None
    counted = "" if found.drop_samples is None else f" ({found.drop_samples:g} of {found.samples} samples)"
    seen = "unseen samples" if found.unseen else "the samples it was chosen by"
    return f"{found.metric} {found.before:.4f} to {found.after:.4f}, drop {found.drop:.2f} points{counted}, {seen}"


def _ratio(report: QuantizeReport) -> str:
    assert report.speed is not None
    interval = report.speed.interval
    return f"{report.speed.ratio:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")


def _trial(trial: Trial) -> str:
    size = _megabytes(trial.size_bytes) if trial.size_bytes else ""
    snr = f"{trial.snr_db:.1f}" if trial.outputs else ""
    drop = "" if trial.accuracy is None else f"{trial.accuracy.drop:.2f}"
    time = "" if trial.speed is None else f"{trial.speed.ratio:.2f}"
    verdict = trial.refusal or (trial.speed.verdict if trial.speed is not None else "not raced")
    return f"{_fit(trial.name, 27):<28}{size:>8}{snr:>8}{drop:>7}{time:>7}  {verdict}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}"


def _fit(text: str, width: int = _WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
