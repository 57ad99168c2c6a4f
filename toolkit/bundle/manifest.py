"""``manifest.json``: what a bundle holds, what it was checked against, and how it was measured.

Schema history (readers accept every version up to theirs; writers write the newest):

    1   first version
    2   variants record whether their rows are independent
"""

from __future__ import annotations

from typing import Any

import msgspec

from toolkit.errors import InvalidBundle
from toolkit.preprocess import Preprocessing
from toolkit.targets import Precision, Target
from toolkit.tensors import TensorSpec

SCHEMA_VERSION = 2
# A manifest names files and numbers; one beyond this size is not one of ours.
MAX_BYTES = 16 * 1024 * 1024


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    size_bytes: int


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One latency that chose between variants: on which target and environment it was taken."""

    target: str
    provider: str
    p50_ns: float
    p50_ci: tuple[float, float] | None = None
    samples: int = 0
    environment: str = ""


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
    provenance: dict[str, Any] = {}
    licence: str = ""


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON; the same manifest gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(content: bytes, where: object) -> Manifest:
    """Read a manifest.

    Raises:
        InvalidBundle: not JSON, a field missing or of the wrong type, an unknown field, a newer schema, or a path that
            leaves the bundle.
    """
    if len(content) > MAX_BYTES:
        raise InvalidBundle(
            "the manifest is too large", where=where, got=f"{len(content)} bytes", expected=f"≤ {MAX_BYTES}"
        )
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise InvalidBundle(
                "the bundle was written by a newer toolkit",
                where=where,
                got=f"schema_version {version}",
                expected=f"at most {SCHEMA_VERSION}",
                next_step="pip install --upgrade onnx-toolkit",
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise InvalidBundle("the manifest does not hold", where=where, got=exc) from exc
    for variant in manifest.variants:
        _check_paths(variant, where)
    return manifest


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def _check_paths(variant: Variant, where: object) -> None:
    for path in variant.files:
        check_member(path, where)
    if variant.model not in variant.files:
        raise InvalidBundle(f"variant '{variant.name}' does not list its model file", where=where, got=variant.model)


def check_member(path: str, where: object) -> None:
    """Refuse a member path that is absolute, climbs out, or is not written the one portable way.

    Raises:
        InvalidBundle: naming the path.
    """
    parts = path.split("/")
    if not path or "\\" in path or ":" in parts[0] or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise InvalidBundle("a member path leaves the bundle", where=where, got=repr(path), expected="a relative path")
