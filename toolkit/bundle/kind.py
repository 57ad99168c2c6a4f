"""What a path is meant as: a bundle or a bare model file. Importing this costs nothing, reading a manifest does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

MANIFEST = "manifest.json"
Verify = Literal["once", "always"]
# Raised when the structural check finds more: stamps of older checks are not taken for new ones.
CHECK_VERSION = 3


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is meant as a bundle: a folder with a manifest, or a zip."""
    path = Path(path)
    if path.is_dir():
        return (path / MANIFEST).is_file()
    if not path.is_file():
        return path.suffix == ".bundle"
    with path.open("rb") as handle:
        return handle.read(4) == b"PK\x03\x04"
