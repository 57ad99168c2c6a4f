"""Make a bundle folder, and add variants to one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from toolkit.bundle.archive import MANIFEST
from toolkit.bundle.manifest import FileRecord, Manifest, Variant, encode
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
        taken = tuple(_take_in(scratch, source) for source in variants)
        write_atomic(scratch / MANIFEST, encode(msgspec.structs.replace(manifest, variants=taken)))
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
    try:
        taken = _take_in(bundle.folder, source)
    except BaseException:
        shutil.rmtree(bundle.folder / "variants" / source.variant.name, ignore_errors=True)
        raise
    manifest = msgspec.structs.replace(bundle.manifest, variants=(*bundle.manifest.variants, taken))
    write_atomic(bundle.folder / MANIFEST, encode(manifest))
    return open_bundle(path)


def replace_manifest(bundle: Bundle, manifest: Manifest) -> Bundle:
    """Write ``manifest`` over the bundle's own, for evidence that came after the files."""
    write_atomic(bundle.folder / MANIFEST, encode(manifest))
    return open_bundle(bundle.folder)


def _take_in(folder: Path, source: VariantSource) -> Variant:
    place = folder / "variants" / source.variant.name
    place.mkdir(parents=True)
    files: dict[str, FileRecord] = {}
    for path in (source.model, *source.companions):
        copy = place / existing_file(path).name
        shutil.copyfile(path, copy)
        files[copy.relative_to(folder).as_posix()] = FileRecord(sha256(copy), copy.stat().st_size)
    model = (place / source.model.name).relative_to(folder).as_posix()
    return msgspec.structs.replace(source.variant, model=model, files=files)
