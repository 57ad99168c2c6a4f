"""``zoo:NAME``: a model of the built-in zoo."""

from __future__ import annotations

from typing import Any

from toolkit.exporter.sources.source import Source
from toolkit.exporter.zoo import zoo_module


def zoo_entry(name: str) -> Any:
    """The entry called ``name``.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    return zoo_module("registry").entry(name)


def open_zoo(text: str, request: Any) -> Source:
    """Build the entry with its seeded random weights."""
    entry = zoo_entry(text.removeprefix("zoo:"))
    notes = () if entry.recipe else (f"zoo:{entry.name} has random weights unless --weights gives others",)
    return Source(
        name=f"zoo:{entry.name}",
        module=entry.build(),
        inputs=tuple(entry.inputs),
        outputs=tuple(entry.outputs),
        preprocessing=entry.preprocessing,
        labels=tuple(entry.labels),
        task=entry.task,
        license=entry.licence,
        notes=notes,
    )
