"""Make a bundle folder, and add variants to one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from toolkit.bundle import weights
from toolkit.bundle.archive import MANIFEST
from toolkit.bundle.manifest import FileRecord, Manifest, Variant, decode, encode
from toolkit.bundle.members import check_name
from toolkit.bundle.reader import Bundle, open_bundle
from toolkit.errors import FileProblem, UsageError
from toolkit.files import existing_file, sha256, write_atomic


class VariantSource(msgspec.Struct, frozen=True):
    """A variant to be taken in: its description without files, and where its files are now.

    ``companions`` are files that the model file names relative to itself, such as external data.
    """

    variant: Variant
    model: Path
    companions: tuple[Path, ...] = ()


def create_bundle(path: str | os.PathLike[str], manifest: Manifest, variants: Sequence[VariantSource]) -> Bundle:
    """Write a new bundle folder at ``path``, whole or not at all.

    Raises:
        FileProblem: something is there already, or it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise FileProblem("something is there already", where=path, next_step="choose another name or remove it")
    if not path.parent.is_dir():
        raise FileProblem("the output's directory does not exist", where=path, next_step=f"mkdir -p {path.parent}")
    try:
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as exc:
        raise FileProblem("the output cannot be written", where=path, got=exc.strerror) from exc
    try:
        scratch.chmod(0o755)
        taken: tuple[Variant, ...] = ()
        for source in variants:
            taken = (*taken, _take_in(scratch, source, taken))
        write_atomic(scratch / MANIFEST, _encoded(msgspec.structs.replace(manifest, variants=taken), path))
        scratch.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return open_bundle(path)


def add_variant(path: str | os.PathLike[str], source: VariantSource) -> Bundle:
    """Add a variant to the bundle folder at ``path``; the manifest comes last, so a failure changes nothing visible.

    Raises:
        UsageError: the bundle is a zip, has a variant of that name, or takes and gives other tensors.
    """
    bundle = open_bundle(path)
    if bundle.folder != bundle.path:
        raise UsageError(
            "a packed bundle is not changed", where=path, next_step="add to the folder, then pack it again"
        )
    if source.variant.name in [variant.name for variant in bundle.manifest.variants]:
        raise UsageError("the bundle has a variant of that name", where=path, got=source.variant.name)
    before = _files(bundle.folder)
    try:
        taken = _take_in(bundle.folder, source, bundle.manifest.variants)
        manifest = msgspec.structs.replace(bundle.manifest, variants=(*bundle.manifest.variants, taken))
        write_atomic(bundle.folder / MANIFEST, _encoded(manifest, path))
    except BaseException:
        for file in _files(bundle.folder) - before:
            file.unlink()
        raise
    return open_bundle(path)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _encoded(manifest: Manifest, where: object) -> bytes:
    """The manifest as bytes that a reader takes: names that clash or leave the bundle are refused here."""
    content = encode(manifest)
    decode(content, where)
    return content


def replace_manifest(bundle: Bundle, manifest: Manifest) -> Bundle:
    """Write ``manifest`` over the bundle's own, for evidence that came after the files."""
    write_atomic(bundle.folder / MANIFEST, _encoded(manifest, bundle.path))
    return open_bundle(bundle.folder)


def _take_in(folder: Path, source: VariantSource, others: Sequence[Variant]) -> Variant:
    """Bring a variant's files into the bundle: weights apart and shared where that can be, else as they are."""
    check_name(source.variant.name, source.model)
    model = existing_file(source.model)
    if weights.can_share(model):
        own = [folder / other.model for other in others if Path(other.model).parent.name == weights.FOLDER]
        stored = weights.store(folder, source.variant.name, model, own)
        return _recorded(folder, source.variant, stored.model, stored.weights)
    place = folder / "variants" / source.variant.name
    place.mkdir(parents=True)
    copies = [place / existing_file(path).name for path in (model, *source.companions)]
    for path, copy in zip((model, *source.companions), copies, strict=True):
        shutil.copyfile(path, copy)
    return _recorded(folder, source.variant, copies[0], copies[1:])


def _recorded(folder: Path, variant: Variant, model: Path, companions: Sequence[Path]) -> Variant:
    """``variant`` with the files that it has in the bundle now, and their hashes."""
    return msgspec.structs.replace(
        variant, model=model.relative_to(folder).as_posix(), files=records(folder, (model, *companions))
    )


def records(folder: Path, paths: Sequence[Path]) -> dict[str, FileRecord]:
    """Hash and size of files in a bundle folder, by their names inside it."""
    return {path.relative_to(folder).as_posix(): FileRecord(sha256(path), path.stat().st_size) for path in paths}
