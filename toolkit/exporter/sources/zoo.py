"""``zoo:NAME``: a model of the built-in zoo."""

from __future__ import annotations

import importlib
from typing import Any

from toolkit.errors import UsageError
from toolkit.exporter.sources.source import Source

# In the wheel the zoo is inside the package, in a checkout beside it.
_PLACES = ("toolkit.model_zoo", "model_zoo")


def zoo_entry(name: str) -> Any:
    """The entry called ``name``.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    return _registry().entry(name)


def _registry() -> Any:
    for place in _PLACES:
        try:
            return importlib.import_module(f"{place}.registry")
        except ModuleNotFoundError as exc:
            if not place.startswith(str(exc.name)) and exc.name != f"{place}.registry":
                raise  # something that the zoo itself needs
    raise UsageError("the model zoo is not installed", where="zoo:", next_step="pip install onnx-toolkit again")


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
