"""The user's cache: what is in it, what for, whether it is still of use, and how it is pruned."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from toolkit import stamps
from toolkit.bundle.kind import MANIFEST
from toolkit.bundle.manifest import decode
from toolkit.errors import ToolkitError
from toolkit.files import cache_folder
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.providers.prepared import DESCRIPTION, Prepared
from toolkit.runtime.forms import difference
from toolkit.targets import Target

# What a process that died leaves behind; one that lives is done with it in this time.
_UNFINISHED_SECONDS = 3600
# What is in the folder and not of this program is shown and never removed.
OTHER = "other"


class Entry(msgspec.Struct, frozen=True):
    """One thing in the cache. ``reason`` says why it is stale, and is empty for what is still valid.

    Attributes:
        place: path inside the cache; the files of an entry that stands for several are in ``files``.
        age_seconds: since it was last used.
    """

    place: str
    kind: str
    what: str
    size_bytes: int
    age_seconds: float
    reason: str = ""
    files: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.reason


def root() -> Path:
    """The folder of the whole cache."""
    return cache_folder("")


def entries() -> tuple[Entry, ...]:
    """Everything in the cache, largest first."""
    folder = root()
    found: list[Entry] = []
    for kind in sorted(folder.iterdir()) if folder.is_dir() else ():
        found += _KINDS.get(kind.name, _unknown)(kind)
    return tuple(sorted(found, key=lambda entry: (-entry.size_bytes, entry.place)))


def prune(
    *, older_than_seconds: float | None = None, max_bytes: int | None = None, everything: bool = False
) -> tuple[Entry, ...]:
    """Remove what is stale, and what the arguments name besides; returns what was removed.

    Args:
        older_than_seconds: also what was not used for so long.
        max_bytes: also what was not used for longest, until no more than this is left.
        everything: all of it.
    """
    present = sorted(entries(), key=lambda entry: -entry.age_seconds)
    left = sum(entry.size_bytes for entry in present)
    removed = []
    for entry in present:
        old = older_than_seconds is not None and entry.age_seconds > older_than_seconds
        if entry.kind != OTHER and (everything or old or not entry.valid):
            removed.append(entry)
            left -= entry.size_bytes
    for entry in present:
        if max_bytes is None or left <= max_bytes:
            break
        if entry not in removed and entry.kind != OTHER:
            removed.append(entry)
            left -= entry.size_bytes
    for entry in removed:
        _remove(entry)
    return tuple(removed)


def _remove(entry: Entry) -> None:
    for place in entry.files or (entry.place,):
        path = root() / place
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _entry(path: Path, kind: str, what: str, reason: str = "") -> Entry:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    size = sum(item.lstat().st_size for item in files)
    return Entry(path.relative_to(root()).as_posix(), kind, what, size, _age(path), reason)


def _age(path: Path) -> float:
    return max(0.0, time.time() - path.lstat().st_mtime)


def _items(folder: Path, kind: str) -> Iterator[Path | Entry]:
    """What is in ``folder``; what a process did not finish as entries already."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith("."):
            yield path
        elif _age(path) > _UNFINISHED_SECONDS:
            yield _entry(path, kind, "unfinished", "the process that made it did not finish")


def _bundles(folder: Path) -> Iterator[Entry]:
    for path in _items(folder, "bundle"):
        yield path if isinstance(path, Entry) else _bundle(path)


def _bundle(path: Path) -> Entry:
    try:
        manifest = decode((path / MANIFEST).read_bytes(), path)
    except (OSError, ToolkitError) as exc:
        return _entry(path, "bundle", "unpacked bundle", f"its manifest cannot be read: {exc}")
    return _entry(path, "bundle", f"{manifest.name}, unpacked")


def _prepared(folder: Path) -> Iterator[Entry]:
    for path in _items(folder, "prepared"):
        yield path if isinstance(path, Entry) else _form(path)


def _form(path: Path) -> Entry:
    try:
        made = msgspec.json.decode((path / DESCRIPTION).read_bytes(), type=Prepared)
    except (OSError, msgspec.DecodeError):
        return _entry(path, "prepared", path.name, "its description cannot be read")
    what = f"{made.model or 'unknown'} on {made.target.name if made.target else path.name.split('-')[0]}"
    return _entry(path, "prepared", what, _form_reason(made))


def _form_reason(made: Prepared) -> str:
    if made.target is None:
        return "an older version made it"
    provider = registry.provider(made.target.provider)
    if isinstance(found := provider.availability(made.target), Unavailable):
        return f"{provider.name} is not available: {found.reason}"
    if reason := difference(made.valid_for, provider.prepared_facts(made.target)):
        return reason
    if not Path(made.model).is_file():
        return "the model is gone"
    return "" if _key(made, made.target) == made.key else "the model was changed"


def _key(made: Prepared, target: Target) -> str:
    try:
        return registry.provider(target.provider).prepared_key(Path(made.model), target)
    except (OSError, ToolkitError):
        return ""


def _engines(folder: Path) -> Iterator[Entry]:
    answer = registry.provider("tensorrt").probe()
    reason = f"TensorRT is not available: {answer.reason}" if isinstance(answer, Unavailable) else ""
    for path in _items(folder, "engine"):
        yield path if isinstance(path, Entry) else _entry(path, "engine", "TensorRT engines or timings", reason)


def _stamps(folder: Path) -> Iterator[Entry]:
    """All stamps that hold as one entry, and all that do not as another."""
    holding: dict[bool, list[Path]] = {True: [], False: []}
    for path in _items(folder, "stamp"):
        if isinstance(path, Entry):
            yield path
        else:
            holding[stamps.holds(path)].append(path)
    what = "checks that files passed"
    yield from _together(holding[True], "stamp", what)
    yield from _together(holding[False], "stamp", what, "the files are gone or were changed")


def _built(folder: Path) -> Iterator[Entry]:
    found = [path for path in _items(folder, "origin") if isinstance(path, Path)]
    yield from _together(found, "origin", "machine code that was made here, by its hash")


def _together(paths: Iterable[Path], kind: str, what: str, reason: str = "") -> Iterator[Entry]:
    paths = list(paths)
    if not paths:
        return
    names = tuple(path.relative_to(root()).as_posix() for path in paths)
    size = sum(path.stat().st_size for path in paths)
    age = min(map(_age, paths))
    yield Entry(f"{paths[0].parent.name}/ ({len(paths)} files)", kind, what, size, age, reason, names)


def _unknown(folder: Path) -> Iterator[Entry]:
    yield _entry(folder, OTHER, "nothing that this version knows")


_KINDS: Mapping[str, Callable[[Path], Iterator[Entry]]] = {
    "bundles": _bundles,
    "prepared": _prepared,
    "tensorrt": _engines,
    stamps.FOLDER: _stamps,
    "built": _built,
}
