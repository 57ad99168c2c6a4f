"""Files are written whole or not at all, and hashed without reading them into memory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import FileProblem

# What the operating system says when it is the output that cannot be written, and not an input that cannot be read.
_WRITE_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def existing_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """``path`` as a Path, checked to be a readable regular file.

    Raises:
        FileProblem: it is missing, a directory, empty or unreadable.
    """
    path = Path(path)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as exc:
        raise FileProblem(f"no such {what}", where=path, next_step=_nearby(path)) from exc
    except (OSError, ValueError) as exc:  # a name too long, a null in it, a file where a folder should be
        raise FileProblem(f"no such {what}", where=path, got=getattr(exc, "strerror", None) or exc) from exc
    if stat.S_ISDIR(kind):
        raise FileProblem(f"this is a directory where a {what} should be", where=path)
    if not stat.S_ISREG(kind):
        raise FileProblem(f"this is a device or a pipe where a {what} should be", where=path)
    if not os.access(path, os.R_OK):
        raise FileProblem(f"the {what} cannot be read", where=path, next_step="check its permissions")
    if path.stat().st_size == 0:
        raise FileProblem(f"the {what} is empty", where=path)
    return path


def _nearby(path: Path) -> str | None:
    import difflib

    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"did you mean {path.parent / close[0]}?" if close else None


def writable_output(path: str | os.PathLike[str]) -> Path:
    """``path`` as a Path, checked before any long work starts that it can be written.

    Raises:
        FileProblem: its directory is missing or not writable, or a directory stands in its place.
    """
    path = Path(path)
    if path.is_dir():
        raise FileProblem("the output is a directory", where=path, expected="a file name")
    if not path.parent.is_dir():
        raise FileProblem("the output's directory does not exist", where=path, next_step=f"mkdir -p {path.parent}")
    import tempfile

    try:
        # os.access says yes to root on a read-only file system; only an attempt tells.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as exc:
        raise FileProblem("the output cannot be written", where=path, got=exc.strerror) from exc
    return path


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a scratch folder beside ``path`` whose files move into ``path.parent`` when the block ends well.

    Used where one output is several files (a graph and its external data). Nothing appears under the final names when
    the block raises. The file called ``path.name`` is moved last, so its presence means that all are there.
    """
    import shutil
    import tempfile

    path = writable_output(path)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    moving = False
    try:
        yield scratch
        moving = True
        _move(scratch, path)
    except OSError as exc:
        if not moving and exc.errno not in _WRITE_FAILURES:
            raise
        raise FileProblem("the output cannot be written", where=path, got=exc.strerror or exc) from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move(scratch: Path, path: Path) -> None:
    for entry in sorted(scratch.iterdir(), key=lambda entry: entry.name == path.name):
        _sync(entry)
        _apply_umask(entry)
        entry.replace(path.parent / entry.name)


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write ``content`` beside ``path``, fsync, rename. Text is UTF-8."""
    path = Path(path)
    with atomic_folder(path) as scratch:
        (scratch / path.name).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _apply_umask(path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def mark_used(folder: Path) -> None:
    """Set a cache entry's time to now, so that ``toolkit cache prune`` knows what is still used."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def cache_folder(name: str) -> Path:
    """The user's cache for ``name`` (not created): in ``$TOOLKIT_CACHE``, else ``toolkit`` in the XDG cache."""
    if own := os.environ.get("TOOLKIT_CACHE"):
        return Path(own) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toolkit" / name


def data_folder() -> Path:
    """Where this user's applications keep what they should not lose, for this one (not created).

    Source: the XDG Base Directory specification; Apple's File System Programming Guide; Windows' Known Folders.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "toolkit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "toolkit"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "toolkit"
