"""``toolkit bundle prepare``: write into a bundle what engines make of its variants ahead of time."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from toolkit.bundle.manifest import Manifest, PreparedForm, Variant
from toolkit.bundle.reader import Bundle, check_variant, open_bundle
from toolkit.bundle.writer import records, replace_manifest
from toolkit.errors import NotApplicable, UsageError, from_vendor
from toolkit.providers import registry
from toolkit.providers.base import Provider, Unavailable
from toolkit.providers.fingerprint import form_key
from toolkit.runtime.forms import key_of
from toolkit.stamps import remember_built
from toolkit.targets import Target

FOLDER = "prepared"
_NOT_A_NAME = re.compile(r"[^\w.-]")


class Made(msgspec.Struct, frozen=True):
    """What happened to one variant on one of its targets. ``reason`` says why nothing was made, and is else empty."""

    variant: str
    target: str
    size_bytes: int = 0
    note: str = ""
    reason: str = ""


def prepare_bundle(
    path: str | os.PathLike[str], targets: Sequence[str] = (), tell: Callable[[str], None] = lambda text: None
) -> tuple[Bundle, tuple[Made, ...]]:
    """Make the ahead-of-time forms of a bundle folder's variants for this machine.

    Forms for other machines stay; those that do not hold any more here are replaced.

    Args:
        path: a bundle folder.
        targets: names of the targets to prepare for; empty for all that the variants name.
        tell: called with a line before each form is made.

    Raises:
        UsageError: the bundle is packed, or none of its variants is for a target in ``targets``.
        ToolkitError: an engine failed on a variant; one that cannot run it is a reason, not an error.
    """
    bundle = open_bundle(path)
    if bundle.folder != bundle.path:
        raise UsageError("a packed bundle is not changed", where=path, next_step="prepare the folder, then pack it")
    _check_names(bundle.manifest, targets, path)
    made: list[Made] = []
    for index, variant in enumerate(bundle.manifest.variants):
        for target in variant.targets:
            if targets and target.name not in targets and target.provider not in targets:
                continue
            tell(f"{variant.name} for {target.name}")
            bundle, result = _prepared(bundle, index, target)
            made.append(result)
    return bundle, tuple(made)


def _check_names(manifest: Manifest, targets: Sequence[str], path: object) -> None:
    known = {name for variant in manifest.variants for own in variant.targets for name in (own.name, own.provider)}
    for name in targets:
        if name not in known:
            raise UsageError(
                "no variant of the bundle is for this target", where=path, got=name, expected=", ".join(sorted(known))
            )


def _prepared(bundle: Bundle, index: int, target: Target) -> tuple[Bundle, Made]:
    variant = bundle.manifest.variants[index]
    engine = registry.provider(target.provider)
    if isinstance(found := engine.availability(target), Unavailable):
        return bundle, Made(variant.name, target.name, reason=found.reason)
    check_variant(bundle, variant)
    try:
        form = _make(bundle.folder, variant, target, engine)
    except NotApplicable as exc:  # the other targets' forms are worth having all the same
        return bundle, Made(variant.name, target.name, reason=str(exc))
    if form is None:
        return bundle, Made(variant.name, target.name, reason=f"{engine.name} has no ahead-of-time form")
    for record in form.files.values():
        remember_built(record.sha256, f"{bundle.manifest.name} {variant.name} {target.name}: {form.note}")
    old = [own for own in variant.prepared if _replaces(form, own)]
    kept = tuple(own for own in variant.prepared if own not in old)
    changed = msgspec.structs.replace(variant, prepared=(*kept, form))
    variants = tuple(changed if at == index else own for at, own in enumerate(bundle.manifest.variants))
    bundle = replace_manifest(bundle, msgspec.structs.replace(bundle.manifest, variants=variants))
    for own in old:
        _remove(bundle.folder, own, form)
    return bundle, Made(variant.name, target.name, sum(record.size_bytes for record in form.files.values()), form.note)


def _replaces(form: PreparedForm, old: PreparedForm) -> bool:
    """Whether ``old`` would never be taken again: it was made from other files, or on the same hardware."""
    if old.target != form.target:
        return False
    hardware = [
        {name: fact for name, fact in one.valid_for.items() if "CPU" in name or "GPU" in name or "device" in name}
        for one in (form, old)
    ]
    return old.key != form.key or hardware[0] == hardware[1]


def _make(folder: Path, variant: Variant, target: Target, engine: Provider) -> PreparedForm | None:
    facts = engine.prepared_facts(target)
    place = folder / FOLDER / variant.name
    place.mkdir(parents=True, exist_ok=True)
    key = key_of(variant, target)
    final = place / f"{_NOT_A_NAME.sub('-', target.name or target.provider)}-{form_key(key, target, facts)[:12]}"
    scratch = Path(tempfile.mkdtemp(dir=place, prefix=".prepare."))
    try:
        made = engine.prepare(folder / variant.model, target, scratch)
        if made is None:
            return None
        scratch.chmod(0o755)
        shutil.rmtree(final, ignore_errors=True)
        scratch.rename(final)
    except Exception as exc:
        raise from_vendor(exc, variant.name, doing=f"preparing for {target.name}") from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files = sorted(path for path in final.rglob("*") if path.is_file())
    return PreparedForm(
        target=target.name,
        provider=target.provider,
        model=(final / made.file).relative_to(folder).as_posix(),
        files=records(folder, files),
        key=key,
        valid_for=facts,
        native=engine.native_forms,
        note=made.note,
    )


def _remove(folder: Path, old: PreparedForm, new: PreparedForm) -> None:
    for name in set(old.files) - set(new.files):
        (folder / name).unlink(missing_ok=True)
    place = (folder / old.model).parent
    if place != (folder / new.model).parent and place.is_relative_to(folder / FOLDER):
        shutil.rmtree(place, ignore_errors=True)
