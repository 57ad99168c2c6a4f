"""Open a bundle, folder or zip, and check that its files are the ones that its manifest vouches for."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from toolkit import stamps
from toolkit.bundle.kind import CHECK_VERSION, MANIFEST, Verify
from toolkit.bundle.manifest import MAX_BYTES, FileRecord, Manifest, PreparedForm, Variant, decode
from toolkit.errors import InvalidBundle
from toolkit.files import existing_file, sha256

# Kinds of model files: ONNX, OpenVINO's IR, a compiled blob, and the descriptions that tests use.
_SUFFIXES = (".onnx", ".xml", ".blob", ".json")


class Bundle(msgspec.Struct, frozen=True):
    """An opened bundle: ``folder`` is where its members are, ``path`` what the user named."""

    path: Path
    folder: Path
    manifest: Manifest

    def model_file(self, owner: Variant | PreparedForm) -> Path:
        return self.folder / owner.model


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
    folder = path if path.is_dir() else _unpacked(existing_file(path, "bundle"))
    manifest_file = folder / MANIFEST
    if not manifest_file.is_file():
        raise InvalidBundle(f"there is no {MANIFEST} in it", where=path, expected="a bundle folder or zip")
    with manifest_file.open("rb") as handle:
        content = handle.read(MAX_BYTES + 1)
    return Bundle(path, folder, decode(content, path))


def _unpacked(path: Path) -> Path:
    from toolkit.bundle.archive import unpacked  # zips and their package are not needed for folders

    return unpacked(path)


def check_variant(bundle: Bundle, variant: Variant | PreparedForm, verify: Verify = "once") -> None:
    """Check place, size, SHA-256 and structure of every file of ``variant``.

    With ``verify="once"`` a file that passed before is passed again while it has not been touched.

    Raises:
        InvalidBundle: naming the first file that is missing, a link out of the bundle, or changed.
        InvalidModel: the model file does not hold together, or refers to a file that the manifest does not vouch for.
    """
    root = bundle.folder.resolve()
    for member, record in variant.files.items():
        _check_file(bundle, root, member, record, verify)
    _check_model(bundle, variant, verify)


def _check_file(bundle: Bundle, root: Path, member: str, record: FileRecord, verify: Verify) -> None:
    path = bundle.folder / member
    try:
        facts = path.stat()
    except (OSError, ValueError) as exc:
        raise InvalidBundle("a file is missing", where=bundle.path, got=member) from exc
    if not stat.S_ISREG(facts.st_mode):
        raise InvalidBundle("a file is missing", where=bundle.path, got=member)
    if not path.resolve().is_relative_to(root):
        raise InvalidBundle("a file is a link out of the bundle", where=bundle.path, got=member)
    if facts.st_size != record.size_bytes:
        raise InvalidBundle(
            "a file is not the size the manifest says",
            where=path,
            got=f"{facts.st_size} bytes",
            expected=record.size_bytes,
        )
    if verify == "once" and stamps.passed(path, record.sha256):
        return
    found = sha256(path)
    if found != record.sha256:
        raise InvalidBundle(
            "a file was changed after the bundle was made", where=path, got=found, expected=record.sha256
        )
    stamps.remember(path, record.sha256)


def _check_model(bundle: Bundle, variant: Variant | PreparedForm, verify: Verify) -> None:
    path = bundle.model_file(variant)
    if path.suffix not in _SUFFIXES:
        expected = f"a file that ends in {', '.join(_SUFFIXES)}"
        raise InvalidBundle("the model is of no known kind", where=bundle.path, got=variant.model, expected=expected)
    what = f"structure {CHECK_VERSION} {_vouched(variant.files)}"
    if path.suffix != ".onnx" or (verify == "once" and stamps.passed(path, what)):
        return
    from toolkit.onnxfile.check import check_model  # not needed when it passed before

    native = isinstance(variant, PreparedForm) and variant.native
    for location in check_model(path, native=native):
        member = (path.parent / location).relative_to(bundle.folder).as_posix()
        if member not in variant.files:
            raise InvalidBundle("the model refers to a file that the manifest does not list", where=path, got=location)
    stamps.remember(path, what)


def _vouched(files: Mapping[str, FileRecord]) -> str:
    return " ".join(f"{name}={record.sha256}" for name, record in sorted(files.items()))
