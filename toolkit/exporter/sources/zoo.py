"""``zoo:NAME``: a model of the built-in zoo."""

from __future__ import annotations

from typing import Any

from toolkit.errors import UsageError
from toolkit.exporter.sources.source import Source
from toolkit.exporter.zoo import zoo_module


def zoo_entry(name: str) -> Any:
    """The entry called ``name``.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    return zoo_module("registry").entry(name)


def open_zoo(text: str, request: Any) -> Source:
    """Build the entry with its seeded random weights.

    Raises:
        UsageError: there is no such entry, or it takes no such argument.
    """
    entry = zoo_entry(text.removeprefix("zoo:"))
    for name, value in request.arguments.items():
        if name != "width" or not isinstance(value, int):
            raise UsageError("the zoo takes no such argument", where=text, got=f"{name}={value}", expected="width=SIZE")
        entry = zoo_module("widths").with_width(entry, value)
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
