"""``manifest.json``: what a bundle holds, what it was checked against, and how it was measured.

Schema history (readers accept every version up to theirs; writers write the newest; docs/bundles.md has the policy):

    1   first version
    2   provenance has fields of its own, measurements a fingerprint, variants the forms prepared ahead of time and the
        record whether their rows are independent
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from toolkit.bundle.members import check_member, check_members, check_name
from toolkit.errors import InvalidBundle
from toolkit.preprocess import Preprocessing
from toolkit.targets import Precision, Target
from toolkit.tensors import TensorSpec

SCHEMA_VERSION = 2
# A manifest names files and numbers; one beyond this size is not one of ours.
MAX_BYTES = 16 * 1024 * 1024
MAX_VARIANTS = 1000
MAX_THREADS = 1024
MAX_SIZE = 1 << 40


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size_bytes: int


class Fingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hardware and software that a measurement was taken on, as far as they decide its outcome."""

    cpu: str = ""
    cores: int = 0
    device: str = ""
    engine: str = ""
    system: str = ""


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One latency that chose between variants: on which target and environment it was taken."""

    target: str
    provider: str
    p50_ns: float
    p50_ci: tuple[float, float] | None = None
    samples: int = 0
    environment: str = ""
    fingerprint: Fingerprint | None = None


class PreparedForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine made of a variant ahead of time, and what it is valid for.

    Attributes:
        target: name of the variant's target that it was made for.
        model: the file to open, a key of ``files``; both are paths inside the bundle.
        key: hash of the variant's files and of what the target asks of the engine.
        valid_for: facts that have to be the same where it is opened, such as ``{"onnxruntime": "1.32.0"}``.
        native: whether it holds machine code, which is run only where it was made or where the user trusts it.
    """

    target: str
    provider: str
    model: str
    files: dict[str, FileRecord]
    key: str
    valid_for: dict[str, str] = {}
    native: bool = False
    note: str = ""


class RowsRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a variant's rows are independent, f([a; b]) = [f(a); f(b)], as tried with one engine.

    Attributes:
        sha256: of the variant's files and of how the target uses the engine; the record says nothing about others.
        reason: why they are not, or are not known to be.
        inputs, outputs: axis that counts rows, by name.
        worst_ulp: largest difference between a row in a batch and alone, in ulp of the row's largest answer.
    """

    provider: str
    version: str
    sha256: str
    independent: bool
    reason: str = ""
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    worst_ulp: float = 0.0


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model file with the weights beside it, the targets it was made for, and the evidence for it.

    ``model`` and the keys of ``files`` are paths inside the bundle, with forward slashes.
    """

    name: str
    model: str
    precision: Precision
    targets: tuple[Target, ...]
    files: dict[str, FileRecord]
    parity: dict[str, Any] = {}
    accuracy: dict[str, Any] = {}
    measurements: tuple[Measurement, ...] = ()
    rows_independent: tuple[RowsRecord, ...] = ()
    prepared: tuple[PreparedForm, ...] = ()


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the model comes from: its source, the hash of what was exported, what was used, how it was calibrated.

    ``versions`` maps packages to versions; ``calibration`` is the quantizer's record of data and ranges; ``other`` is
    for whoever made the bundle.
    """

    source: str = ""
    source_sha256: str = ""
    versions: dict[str, str] = {}
    calibration: dict[str, Any] = {}
    other: dict[str, Any] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole bundle."""

    schema_version: int = SCHEMA_VERSION
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...] = ()
    task: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    state: dict[str, str] = {}
    provenance: Provenance = Provenance()
    licence: str = ""


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON in the newest schema; the same manifest gives the same bytes."""
    newest = msgspec.structs.replace(manifest, schema_version=SCHEMA_VERSION)
    return msgspec.json.format(msgspec.json.encode(newest, order="sorted"), indent=2) + b"\n"


def decode(content: bytes, where: object) -> Manifest:
    """Read a manifest of this or an older schema.

    Raises:
        InvalidBundle: not JSON, a field missing or of the wrong type, an unknown field, a newer schema, a path that
            leaves the bundle, names that clash, or more than any bundle has.
    """
    if len(content) > MAX_BYTES:
        raise InvalidBundle(
            "the manifest is too large", where=where, got=f"{len(content)} bytes", expected=f"≤ {MAX_BYTES}"
        )
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        _check_version(version, where)
        manifest = _decoded(content, version)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise InvalidBundle("the manifest does not hold", where=where, got=exc) from exc
    _check(manifest, where)
    return manifest


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def _check_version(version: int, where: object) -> None:
    if version > SCHEMA_VERSION:
        raise InvalidBundle(
            "the bundle was written by a newer toolkit",
            where=where,
            got=f"schema_version {version}",
            expected=f"at most {SCHEMA_VERSION}",
            next_step="pip install --upgrade onnx-toolkit",
        )
    if version < 1:
        raise InvalidBundle(
            "there is no such schema", where=where, got=f"schema_version {version}", expected="1 or more"
        )


def _decoded(content: bytes, version: int) -> Manifest:
    if version == SCHEMA_VERSION:
        return msgspec.json.decode(content, type=Manifest)
    plain = msgspec.json.decode(content, type=dict[str, Any])
    for old in range(version, SCHEMA_VERSION):
        plain = _UPGRADES[old](plain)
    return msgspec.convert({**plain, "schema_version": SCHEMA_VERSION}, Manifest)


def _from_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 let provenance hold anything: what has no field of its own now is kept under ``other``."""
    old = plain.get("provenance", {})
    if not isinstance(old, dict):
        return plain
    known = {key: old[key] for key in ("source",) if isinstance(old.get(key), str)}
    other = {key: value for key, value in old.items() if key not in known}
    return {**plain, "provenance": {**known, **({"other": other} if other else {})}}


# From each older schema to the one after it.
_UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def _check(manifest: Manifest, where: object) -> None:
    if len(manifest.variants) > MAX_VARIANTS:
        raise InvalidBundle(
            "more variants than any bundle has", where=where, got=len(manifest.variants), expected=f"≤ {MAX_VARIANTS}"
        )
    _check_unique("variant", [variant.name for variant in manifest.variants], where)
    paths: set[str] = set()
    for variant in manifest.variants:
        check_name(variant.name, where)
        owners: tuple[Variant | PreparedForm, ...] = (variant, *variant.prepared)
        for owner in owners:
            _check_files(owner, variant.name, where)
            paths.update(owner.files)
        for target in variant.targets:
            _check_target(target, where)
    check_members(paths, where)
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        _check_unique(kind, [spec.name for spec in specs], where)
        for size in [dim for spec in specs for dim in spec.shape or () if isinstance(dim, int)]:
            if not 0 <= size <= MAX_SIZE:
                raise InvalidBundle(f"a size of an {kind} out of range", where=where, got=str(size)[:40])


def _check_unique(kind: str, names: Iterable[str], where: object) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidBundle(f"two {kind}s have one name", where=where, got=repr(name))
        seen.add(name)


def _check_files(owner: Variant | PreparedForm, name: str, where: object) -> None:
    for path, record in owner.files.items():
        check_member(path, where)
        if record.size_bytes < 0 or len(record.sha256) != 64 or not set(record.sha256) <= set("0123456789abcdef"):
            raise InvalidBundle("a file's record does not hold", where=where, got=f"{path}: {record.sha256[:80]!r}")
    if owner.model not in owner.files:
        raise InvalidBundle(f"variant '{name}' does not list its model file", where=where, got=owner.model)


def _check_target(target: Target, where: object) -> None:
    for count in (target.threads, target.streams):
        if not 0 <= count <= MAX_THREADS:
            raise InvalidBundle("threads or streams out of range", where=where, got=count, expected=f"0…{MAX_THREADS}")
