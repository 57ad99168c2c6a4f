"""A bundle as one file: a zip with stored members and fixed timestamps, so that equal bundles are equal bytes.

Engines map model files from disk, so a packed bundle is unpacked once into the user's cache, under the hash of the zip.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

from toolkit.bundle.manifest import MAX_BYTES, check_member
from toolkit.errors import FileProblem, InvalidBundle
from toolkit.files import atomic_folder, cache_folder, sha256

MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20


def pack(folder: Path, output: Path) -> None:
    """Write the bundle in ``folder`` as one zip at ``output``."""
    with atomic_folder(output) as scratch, zipfile.ZipFile(scratch / output.name, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            member.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, _BLOCK)


def unpacked(path: Path) -> Path:
    """The folder that holds the members of the zip at ``path``, unpacking it the first time.

    Raises:
        InvalidBundle: not a zip, damaged, a member that leaves the bundle, a link, or sizes that do not hold. Nothing
            is left behind.
    """
    final = cache_folder("bundles") / sha256(path)
    if (final / MANIFEST).is_file():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=final.parent, prefix=".unpack."))
    try:
        _extract(path, scratch)
        scratch.rename(final)
    except OSError as exc:
        if not (final / MANIFEST).is_file():  # else another process unpacked it first, which is as good
            raise FileProblem("cannot unpack the bundle", where=final.parent, got=exc.strerror or exc) from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final


def _extract(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, path)
            for member in members:
                _extract_member(archive, member, folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as exc:
        raise InvalidBundle("not a whole zip file", where=path, got=exc) from exc


def _check_members(members: list[zipfile.ZipInfo], path: Path) -> None:
    if MANIFEST not in [member.filename for member in members]:
        raise InvalidBundle(
            f"there is no {MANIFEST} in it", where=path, expected="a bundle made by 'toolkit bundle pack'"
        )
    available = path.stat().st_size
    for member in members:
        check_member(member.filename.rstrip("/"), path)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InvalidBundle("a member is a link", where=path, got=member.filename)
        # Members are stored, so none can be larger than the archive: this also ends zip bombs.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > available:
            raise InvalidBundle(
                "a member is compressed or claims more bytes than the file has", where=path, got=member.filename
            )
        if member.filename == MANIFEST and member.file_size > MAX_BYTES:
            raise InvalidBundle("the manifest is too large", where=path, got=f"{member.file_size} bytes")


def _extract_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    if member.is_dir():
        return
    output = folder / member.filename
    output.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, output.open("xb") as target:
        shutil.copyfileobj(source, target, _BLOCK)
