"""A bundle as one file: a zip with stored members and fixed timestamps, so that equal bundles are equal bytes.

Engines map model files from disk, so a packed bundle is unpacked once into the user's cache, under the hash of the zip.
"""

from __future__ import annotations

import shutil
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

from toolkit.bundle.kind import MANIFEST as MANIFEST
from toolkit.bundle.manifest import MAX_BYTES
from toolkit.bundle.members import MAX_MEMBERS, check_member, check_members
from toolkit.errors import FileProblem, InvalidBundle
from toolkit.files import atomic_folder, cache_folder, mark_used
from toolkit.stamps import known_sha256

_EPOCH = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20
# The end of a zip without a comment; source: APPNOTE.TXT 6.3.10, 4.3.14 to 4.3.16.
_END, _END64, _LOCATOR64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
# A local header without its name and extra fields; an entry of the directory has this much and more.
_LOCAL_BYTES, _ENTRY_BYTES = 30, 46
_ENCRYPTED = 1


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
        InvalidBundle: not a zip, damaged, a member that leaves the bundle, a link or device, names that clash, or sizes
            that do not hold. Nothing is left behind.
    """
    final = cache_folder("bundles") / known_sha256(path)
    if (final / MANIFEST).is_file():
        mark_used(final)
        return final
    scratch: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=final.parent, prefix=".unpack."))
        _extract(path, scratch)
        scratch.rename(final)
    except OSError as exc:
        if not (final / MANIFEST).is_file():  # else another process unpacked it first, which is as good
            raise FileProblem("cannot unpack the bundle", where=final.parent, got=exc.strerror or exc) from exc
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return final


def _extract(path: Path, folder: Path) -> None:
    _check_directory_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_all(members, path)
            for member in members:
                _extract_member(archive, member, folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as exc:
        raise InvalidBundle("not a whole zip file", where=path, got=exc) from exc


def _check_directory_size(path: Path) -> None:
    """Check how many members the end of the zip claims, before the list of them is read into memory.

    Raises:
        InvalidBundle: the zip does not end as one without a comment does, or claims too many members.
    """
    tail_bytes = _END.size + _LOCATOR64.size + _END64.size
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - tail_bytes))
        tail = handle.read()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\5\6":
        raise InvalidBundle("not a whole zip file", where=path, got="no end record", expected="a zip without a comment")
    _, _, _, _, count, size, _, _ = _END.unpack(tail[-_END.size :])
    if 0xFFFF in (count, size & 0xFFFF) and len(tail) == tail_bytes and tail[:4] == b"PK\6\6":
        _, _, _, _, _, _, _, count, size, _ = _END64.unpack(tail[: _END64.size])
    if count > MAX_MEMBERS or size > MAX_MEMBERS * 1024:
        raise InvalidBundle("more members than any bundle has", where=path, got=count, expected=f"≤ {MAX_MEMBERS}")


def _check_all(members: list[zipfile.ZipInfo], path: Path) -> None:
    for member in members:
        # zipfile cuts a name at its first NUL; what the archive really says is in orig_filename.
        check_member(member.orig_filename.rstrip("/"), path)
    files = [member.filename for member in members if not member.is_dir()]
    if MANIFEST not in files:
        raise InvalidBundle(
            f"there is no {MANIFEST} in it", where=path, expected="a bundle made by 'toolkit bundle pack'"
        )
    available = path.stat().st_size
    for member in members:
        _check_one(member, path, available)
    if len(set(files)) < len(files):
        raise InvalidBundle("two members have one name", where=path, got=repr(_first_double(files)))
    check_members(files, path)
    _check_overlap(members, path)


def _first_double(names: list[str]) -> str:
    return next(name for index, name in enumerate(names) if name in names[:index])[:200]


def _check_one(member: zipfile.ZipInfo, path: Path, available: int) -> None:
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidBundle("a member is a link or a device", where=path, got=member.filename)
    # Members are stored, so none can be larger than the archive: this also ends zip bombs.
    if member.compress_type != zipfile.ZIP_STORED or not 0 <= member.file_size == member.compress_size <= available:
        raise InvalidBundle(
            "a member is compressed or claims more bytes than the file has", where=path, got=member.filename
        )
    if member.flag_bits & _ENCRYPTED:
        raise InvalidBundle("a member is encrypted", where=path, got=member.filename)
    if member.is_dir() and member.file_size:
        raise InvalidBundle("a folder has content", where=path, got=member.filename)
    if member.filename == MANIFEST and member.file_size > MAX_BYTES:
        raise InvalidBundle("the manifest is too large", where=path, got=f"{member.file_size} bytes")


def _check_overlap(members: list[zipfile.ZipInfo], path: Path) -> None:
    """Refuse members that share bytes: many large files from one small archive."""
    end, last = 0, ""
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise InvalidBundle("members overlap", where=path, got=f"{last} and {member.filename}")
        end = member.header_offset + _LOCAL_BYTES + len(member.orig_filename.encode()) + member.compress_size
        last = member.filename


def _extract_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    if member.is_dir():
        return
    output = folder / member.filename
    output.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, output.open("xb") as target:
        shutil.copyfileobj(source, target, _BLOCK)
