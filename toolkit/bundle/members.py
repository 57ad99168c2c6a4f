"""Names of files inside a bundle: relative, portable, and different wherever the bundle may be unpacked."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from toolkit.errors import InvalidBundle

# Linux and macOS end a name at 255 bytes; a path of more than 1,024 opens on none of the systems that we know.
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
MAX_MEMBERS = 10_000


def check_member(path: str, where: object) -> None:
    """Refuse a member path that is absolute, climbs out, is too long, or is not written the one portable way.

    Raises:
        InvalidBundle: naming the path.
    """
    parts = path.split("/")
    if not path or "\\" in path or ":" in parts[0] or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise InvalidBundle(
            "a member path leaves the bundle", where=where, got=repr(path[:200]), expected="a relative path"
        )
    if not path.isprintable():
        raise InvalidBundle("a member path holds control characters", where=where, got=repr(path[:200]))
    if len(_encoded(path, where)) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise InvalidBundle("a member path is too long", where=where, got=f"{len(path)} characters")


def check_name(name: str, where: object) -> None:
    """Refuse a name that could not be that of one file: a folder in the bundle may be called after it.

    Raises:
        InvalidBundle: naming it.
    """
    check_member(name, where)
    if "/" in name:
        raise InvalidBundle("a variant's name is not one file name", where=where, got=repr(name[:200]))


def _encoded(path: str, where: object) -> bytes:
    try:
        return path.encode()
    except UnicodeEncodeError as exc:
        raise InvalidBundle("a member path is no text", where=where, got=repr(path[:200])) from exc


def check_members(paths: Iterable[str], where: object) -> None:
    """Refuse paths that are one file on some system (by case or by accents), and files that stand where folders do.

    Raises:
        InvalidBundle: naming one of two that clash, or too many.
    """
    seen: dict[str, str] = {}
    folders: set[str] = set()
    for count, path in enumerate(sorted(paths)):
        if count >= MAX_MEMBERS:
            raise InvalidBundle("more members than any bundle has", where=where, expected=f"≤ {MAX_MEMBERS}")
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            raise InvalidBundle(
                "two members have one name", where=where, got=f"{seen[folded][:200]!r} and {path[:200]!r}"
            )
        seen[folded] = path
        parts = folded.split("/")
        folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
    if clash := next((seen[name] for name in sorted(folders & set(seen))), None):
        raise InvalidBundle("a member is a file and a folder", where=where, got=repr(clash[:200]))
