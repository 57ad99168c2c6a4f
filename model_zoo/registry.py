"""All models of the zoo by name. Listing them imports neither torch nor transformers."""

from __future__ import annotations

from toolkit.errors import UsageError
from toolkit.tensors import nearest

from .catalogue import CATALOGUE
from .entry import ZooEntry


def entries() -> dict[str, ZooEntry]:
    """Every entry by name, in the catalogue's order."""
    return {item.name: item for item in CATALOGUE}


def entry(name: str) -> ZooEntry:
    """The entry called ``name``; ``-`` and ``_`` are the same, capitals do not count.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    known = entries()
    wanted = name.strip().lower().replace("-", "_")
    if wanted not in known:
        raise UsageError("the zoo has no such model", where="zoo", got=repr(name), expected=nearest(wanted, known))
    return known[wanted]
