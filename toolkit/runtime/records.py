"""What a bundle's manifest says of its variants' rows: written when it is made, believed by who would find the same."""

from __future__ import annotations

import hashlib

import msgspec

from toolkit.bundle.manifest import RowsRecord, Variant
from toolkit.bundle.reader import Bundle, check_variant
from toolkit.bundle.writer import replace_manifest
from toolkit.errors import EngineError, NotApplicable, ProviderUnavailable
from toolkit.providers import registry
from toolkit.providers.base import Available
from toolkit.providers.session import Session
from toolkit.runtime.rows import Rows, prove_rows
from toolkit.targets import Target


def record_rows(bundle: Bundle, name: str) -> Bundle:
    """Try the rows of variant ``name`` on each of its targets that are here; the manifest gets what was found.

    Targets that are not here, or on which it does not open, are left out: whoever loads the bundle there tries it then.
    """
    variants = [_with_rows(bundle, item) if item.name == name else item for item in bundle.manifest.variants]
    return replace_manifest(bundle, msgspec.structs.replace(bundle.manifest, variants=tuple(variants)))


def _with_rows(bundle: Bundle, variant: Variant) -> Variant:
    check_variant(bundle, variant)
    found = [_record(bundle, variant, target) for target in variant.targets]
    records = tuple(record for index, record in enumerate(found) if record is not None and record not in found[:index])
    return msgspec.structs.replace(variant, rows_independent=records)


def _record(bundle: Bundle, variant: Variant, target: Target) -> RowsRecord | None:
    try:
        return _tried(bundle, variant, target)
    except (ProviderUnavailable, NotApplicable, EngineError):
        return None


def _tried(bundle: Bundle, variant: Variant, target: Target) -> RowsRecord:
    with registry.provider(target.provider).open(bundle.model_file(variant), target) as session:
        session.inputs = bundle.manifest.inputs or session.inputs
        found = msgspec.structs.asdict(prove_rows(session))
        return msgspec.convert({**_key(variant, session), **found}, RowsRecord)


def known_rows(variant: Variant, session: Session) -> Rows | None:
    """What ``variant`` records for just these files, this engine's version and the way that ``session`` uses it."""
    if not variant.rows_independent:
        return None
    key = _key(variant, session)
    for record in variant.rows_independent:
        if all(getattr(record, name) == value for name, value in key.items()) and _fits(record, session):
            return msgspec.convert(record, Rows, from_attributes=True)
    return None


def _fits(record: RowsRecord, session: Session) -> bool:
    """Whether the axes are those of the model's tensors; the manifest may be anybody's."""
    inputs = {spec.name: len(spec.shape or ()) for spec in session.inputs}
    outputs = {spec.name: 64 if spec.shape is None else len(spec.shape) for spec in session.outputs}
    return not record.independent or (
        (bool(record.inputs) and set(record.outputs) == set(outputs))
        and all(0 <= axis < inputs.get(name, 0) for name, axis in record.inputs.items())
        and all(0 <= axis < outputs[name] for name, axis in record.outputs.items())
    )


def _key(variant: Variant, session: Session) -> dict[str, str]:
    found = registry.provider(session.provider).probe(session.target.device)
    version = found.version if isinstance(found, Available) else ""
    used = (session.target.device, session.target.inference_precision, sorted(session.target.engine_options.items()))
    files = sorted((path.rpartition("/")[2], file.sha256) for path, file in variant.files.items())
    digest = hashlib.sha256(repr((files, used)).encode()).hexdigest()
    return {"provider": session.provider, "version": version, "sha256": digest}
