"""Ahead-of-time forms of model files, and where they are kept: in the user's cache, under what they are valid for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from toolkit.files import cache_folder, mark_used
from toolkit.targets import Target

# In the cache, beside a form: its description.
DESCRIPTION = "prepared.json"


class Prepared(msgspec.Struct, frozen=True):
    """An ahead-of-time form of a model file: its name, what it is valid for, and that in words.

    In the cache it also says what it was made from, so that ``toolkit cache`` can tell what is of no use any more.
    """

    file: str
    key: str
    note: str = ""
    model: str = ""
    target: Target | None = None
    valid_for: dict[str, str] = {}


def cached_form(name: str, make: Callable[[Path], Prepared | None]) -> Path | None:
    """The form called ``name``, which ``make`` writes into a folder the first time; None where it makes none.

    Whole or not at all: another process that makes the same may be faster, and what it made is as good.
    """
    import shutil
    import tempfile

    folder = cache_folder("prepared") / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".prepare."))
        try:
            made = make(scratch)
            if made is None:
                return None
            (scratch / DESCRIPTION).write_bytes(msgspec.json.encode(made))
            try:
                scratch.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    mark_used(folder)
    return folder / msgspec.json.decode((folder / DESCRIPTION).read_bytes(), type=Prepared).file
