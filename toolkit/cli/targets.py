"""``toolkit targets``: every shipped target, what it runs, and whether it can be used here."""

from __future__ import annotations

import click
import msgspec

from toolkit.cli.layout import columns, paragraph
from toolkit.cli.options import emit, format_option
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.targets import Precision, Target, shipped_targets


class Row(msgspec.Struct, frozen=True):
    """One target as it is printed."""

    name: str
    description: str
    provider: str
    device: str
    precisions: tuple[Precision, ...]
    inference_precision: str
    mode: str
    available: bool
    version: str = ""
    reason: str = ""
    remedy: str = ""


@click.command()
@format_option
def targets(output_format: str) -> None:
    """List the targets and whether they can be used here.

    A file of your own works as well as a name: --target my-target.toml.
    """
    found = tuple(_row(target) for target in shipped_targets().values())
    emit({"targets": msgspec.to_builtins(found)}, output_format, lambda: _table(found))


def _row(target: Target) -> Row:
    answer = registry.availability(target)
    missing = isinstance(answer, Unavailable)
    return Row(
        name=target.name,
        description=target.description,
        provider=target.provider,
        device=target.device,
        precisions=target.precisions,
        inference_precision=target.inference_precision,
        mode=target.mode,
        available=not missing,
        version="" if isinstance(answer, Unavailable) else answer.version,
        reason=answer.reason if isinstance(answer, Unavailable) else "",
        remedy=answer.remedy if isinstance(answer, Unavailable) else "",
    )


def _table(found: tuple[Row, ...]) -> str:
    header = ("TARGET", "PROVIDER", "FILES", "COMPUTES IN", "HERE")
    lines = columns([header, *(_cells(row) for row in found)])
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in found:
        if not row.available:
            reasons.setdefault((row.reason, row.remedy), []).append(row.name)
    for (reason, remedy), names in reasons.items():
        lines += [
            "",
            *paragraph(f"Not available: {', '.join(names)}", ""),
            *paragraph(reason),
            *paragraph(f"→ {remedy}"),
        ]
    return "\n".join(lines)


_SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}


def _cells(row: Row) -> tuple[str, ...]:
    files = ",".join(_SHORT.get(name, name) for name in row.precisions) or "any"
    computes = _SHORT.get(row.inference_precision, row.inference_precision) or "as the file"
    provider = f"{row.provider}:{row.device}" if row.device else row.provider
    return (row.name, provider, files, computes, "yes" if row.available else "no")
