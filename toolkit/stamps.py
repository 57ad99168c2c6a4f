"""What this machine has seen of a file: checks that passed, hashes that were taken, machine code that was made here.

A stamp is a small file in the user's cache. It holds while the file keeps its size, times and inode: what writes a
file through the system changes its ctime, which no program can set. Whoever can write the user's cache can do anything
in the user's name already.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path

from toolkit.files import cache_folder, sha256

FOLDER = "stamps"
_BUILT = "built"
# A file that changed so lately may change again within one tick of the file system's clock.
_SETTLED_NS = 2_000_000_000


def passed(path: Path, what: str) -> bool:
    """Whether ``path`` passed the check called ``what`` and has not been touched since."""
    stamp = _stamp_file(path, what)
    try:
        return stamp.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0] == _state(path)
    except (OSError, ValueError):
        return False


def remember(path: Path, what: str, value: str = "") -> None:
    """Remember that ``path`` passed; a cache that cannot be written only means that it is checked again."""
    stamp = _stamp_file(path, what)
    with contextlib.suppress(OSError):
        _write(stamp, "\n".join((_state(path), str(path.resolve()), value)))


def _write(stamp: Path, content: str) -> None:
    """Whole or not at all, but not synced to disk: a stamp that a crash takes away is only a check done again."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    scratch = stamp.with_name(f"{stamp.name}.{os.getpid()}.{threading.get_ident()}")
    scratch.write_text(content, encoding="utf-8", errors="surrogateescape")
    scratch.replace(stamp)


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, from its stamp when it was taken before and the file has not been touched since."""
    stamp = _stamp_file(path, "sha256")
    if passed(path, "sha256"):
        return stamp.read_text(encoding="utf-8", errors="replace").rsplit("\n", 1)[1]
    before = _state(path)
    found = sha256(path)
    if _state(path) == before and time.time_ns() - path.stat().st_ctime_ns > _SETTLED_NS:
        remember(path, "sha256", found)
    return found


def built_here(digest: str) -> bool:
    """Whether a file of this SHA-256 was made by an engine on this machine, for this user."""
    return (cache_folder(_BUILT) / digest).is_file()


def holds(stamp: Path) -> bool:
    """Whether the file that a stamp speaks of is still there and untouched."""
    try:
        state, path, *_ = stamp.read_text(encoding="utf-8", errors="replace").split("\n")
        return state == _state(Path(path))
    except (OSError, ValueError):
        return False


def remember_built(digest: str, what: str) -> None:
    """Remember that a file of this SHA-256 was made here; ``what`` says for whom, in one line."""
    _write(cache_folder(_BUILT) / digest, what)


def _stamp_file(path: Path, what: str) -> Path:
    place = hashlib.sha256(f"{path.resolve()}\n{what}".encode(errors="surrogateescape")).hexdigest()
    return cache_folder(FOLDER) / place


def _state(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_dev} {facts.st_ino}"
