"""``toolkit cache``: what is cached, what for, and how to be rid of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.layout import columns
from toolkit.cli.options import emit, format_option
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.runtime.caches import Entry

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@click.group(invoke_without_command=True)
@format_option
@click.pass_context
def cache(ctx: click.Context, output_format: str) -> None:
    """List what is cached: unpacked bundles, prepared forms, engines, stamps.

    The cache lies in $TOOLKIT_CACHE, else in ~/.cache/toolkit. Whatever is removed is made again when it is needed.
    """
    if ctx.invoked_subcommand is None:
        from toolkit.runtime.caches import entries, root

        found = entries()
        emit(
            {"folder": str(root()), "entries": [_plain(entry) for entry in found]}, output_format, lambda: _table(found)
        )


@cache.command()
@click.option("--older-than", metavar="AGE", help="Also what was not used for so long: 30d, 12h, 2w.")
@click.option("--max-size", metavar="SIZE", help="Also what was not used for longest, until no more is left: 2GB.")
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
@format_option
def prune(older_than: str | None, max_size: str | None, everything: bool, output_format: str) -> None:
    """Remove what is stale, and what the options name besides."""
    from toolkit.runtime.caches import prune as prune_cache

    removed = prune_cache(
        older_than_seconds=None if older_than is None else _amount(older_than, _SECONDS, "--older-than", "30d"),
        max_bytes=None if max_size is None else int(_amount(max_size, _BYTES, "--max-size", "2GB")),
        everything=everything,
    )
    result = {"removed": [_plain(entry) for entry in removed], "size_bytes": sum(entry.size_bytes for entry in removed)}
    emit(result, output_format, lambda: f"removed {len(removed)} entries, {_size(sum(e.size_bytes for e in removed))}")


def _amount(text: str, units: dict[str, int], option: str, example: str) -> float:
    match = re.fullmatch(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>[a-zA-Z]+)", text.strip())
    by_name = {unit.lower(): factor for unit, factor in units.items()}
    if match is None or match["unit"].lower() not in by_name:
        expected = f"a number and one of {', '.join(units)}, such as {example}"
        raise UsageError("cannot read this amount", where=option, got=repr(text), expected=expected)
    return float(match["count"]) * by_name[match["unit"].lower()]


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "place": entry.place,
        "kind": entry.kind,
        "what": entry.what,
        "size_bytes": entry.size_bytes,
        "age_seconds": round(entry.age_seconds, 1),
        "valid": entry.valid,
        "reason": entry.reason,
    }


def _table(found: Sequence[Entry]) -> str:
    if not found:
        return "nothing is cached"
    header = ("KIND", "SIZE", "USED", "STATE", "FOR")
    cells = [
        (e.kind, _size(e.size_bytes), _age(e.age_seconds), "valid" if e.valid else "stale", _cut(e.what)) for e in found
    ]
    lines = columns([header, *cells])
    lines += (
        ["", *sorted({f"stale: {_cut(e.reason, 72)}" for e in found if not e.valid})]
        if any(not e.valid for e in found)
        else []
    )
    return "\n".join(lines)


def _cut(text: str, width: int = 40) -> str:
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _age(seconds: float) -> str:
    for unit in ("w", "d", "h", "m"):
        if seconds >= _SECONDS[unit]:
            return f"{seconds / _SECONDS[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
