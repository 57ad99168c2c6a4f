"""Open a bundle, folder or zip, and check that its files are the ones that its manifest vouches for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from toolkit.bundle import archive
from toolkit.bundle.manifest import Manifest, Variant, decode
from toolkit.errors import FileProblem, InvalidBundle
from toolkit.files import cache_folder, existing_file, sha256, write_atomic

Verify = Literal["once", "always"]


class Bundle(msgspec.Struct, frozen=True):
    """An opened bundle: ``folder`` is where its members are, ``path`` what the user named."""

    path: Path
    folder: Path
    manifest: Manifest

    def model_file(self, variant: Variant) -> Path:
        return self.folder / variant.model


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is meant as a bundle: a folder with a manifest, or a zip."""
    path = Path(path)
    if path.is_dir():
        return (path / archive.MANIFEST).is_file()
    if not path.is_file():
        return path.suffix == ".bundle"
    with path.open("rb") as handle:
        return handle.read(4) == b"PK\x03\x04"


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read the manifest of the bundle at ``path``; a zip is unpacked into the user's cache.

    Hashes are checked later, per variant that is used.

    Raises:
        FileProblem: nothing is there.
        InvalidBundle: no manifest, or one that does not hold.
    """
    path = Path(path)
    if not path.exists():
        existing_file(path, "bundle")
    folder = path if path.is_dir() else archive.unpacked(existing_file(path, "bundle"))
    manifest_file = folder / archive.MANIFEST
    if not manifest_file.is_file():
        raise InvalidBundle(f"there is no {archive.MANIFEST} in it", where=path, expected="a bundle folder or zip")
    return Bundle(path, folder, decode(manifest_file.read_bytes(), path))


def check_variant(bundle: Bundle, variant: Variant, verify: Verify = "once") -> None:
    """Check size and SHA-256 of every file of ``variant``.

    With ``verify="once"`` a file that passed before is passed again while its size, modification time and inode stay.

    Raises:
        InvalidBundle: naming the first file that is missing, a link out of the bundle, or changed.
    """
    for member, record in variant.files.items():
        path = bundle.folder / member
        _check_place(bundle, path, member)
        size = path.stat().st_size
        if size != record.size_bytes:
            raise InvalidBundle(
                "a file is not the size the manifest says", where=path, got=f"{size} bytes", expected=record.size_bytes
            )
        stamp = _stamp_file(path, record.sha256)
        if verify == "once" and stamp.is_file() and stamp.read_text(encoding="utf-8") == _stamp(path):
            continue
        found = sha256(path)
        if found != record.sha256:
            raise InvalidBundle(
                "a file was changed after the bundle was made", where=path, got=found, expected=record.sha256
            )
        _write_stamp(stamp, path)


def _check_place(bundle: Bundle, path: Path, member: str) -> None:
    if not path.is_file():
        raise InvalidBundle("a file is missing", where=bundle.path, got=member)
    if not path.resolve().is_relative_to(bundle.folder.resolve()):
        raise InvalidBundle("a file is a link out of the bundle", where=bundle.path, got=member)


def _stamp_file(path: Path, digest: str) -> Path:
    place = hashlib.sha256(f"{path.resolve()}\n{digest}".encode()).hexdigest()
    return cache_folder("stamps") / place


def _stamp(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"


def _write_stamp(stamp: Path, path: Path) -> None:
    """Remember a passed check; a cache that cannot be written only means that the next opening checks again."""
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(stamp, _stamp(path))
    except (OSError, FileProblem):
        return
