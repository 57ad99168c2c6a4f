"""Which ahead-of-time form of a variant may be opened here, and why another one may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from toolkit.bundle.kind import Verify
from toolkit.bundle.manifest import FileRecord, PreparedForm, Variant
from toolkit.bundle.reader import Bundle, check_variant
from toolkit.errors import InvalidBundle, InvalidModel, ToolkitError
from toolkit.providers import registry
from toolkit.providers.fingerprint import form_key
from toolkit.providers.session import Session
from toolkit.stamps import built_here
from toolkit.targets import Target


class Found(msgspec.Struct, frozen=True):
    """The form that fits, or None and the reasons, one for each form that was passed over."""

    form: PreparedForm | None
    reasons: tuple[str, ...] = ()


def files_digest(files: Mapping[str, FileRecord]) -> str:
    """One text that stands for a variant's files: their hashes, whatever they are called."""
    return " ".join(sorted(record.sha256 for record in files.values()))


def key_of(variant: Variant, target: Target) -> str:
    """What a form is made from: the variant's files and what ``target`` asks of the engine."""
    return form_key(files_digest(variant.files), target)


def fitting_form(variant: Variant, target: Target, *, trust: bool) -> Found:
    """The first form of ``variant`` that holds here, on ``target``."""
    reasons: list[str] = []
    for form in variant.prepared:
        if form.provider != target.provider:
            continue
        reason = _reason(form, variant, target, trust=trust)
        if not reason:
            return Found(form, tuple(reasons))
        reasons.append(f"the prepared form for {form.target} is not used: {reason}")
    return Found(None, tuple(reasons))


def _reason(form: PreparedForm, variant: Variant, target: Target, *, trust: bool) -> str:
    """Why ``form`` does not hold here; empty when it does."""
    if form.key != key_of(variant, target):
        return "it was made from other files or for other settings of the target"
    if reason := difference(form.valid_for, registry.provider(target.provider).prepared_facts(target)):
        return reason
    # What a provider writes decides, not what the manifest says of it.
    native = form.native or registry.provider(target.provider).native_forms
    if native and not trust and not all(built_here(record.sha256) for record in form.files.values()):
        return "it is machine code that was not made on this machine (trust_prepared=True takes it all the same)"
    return ""


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """The first fact in which a form's validity differs from this machine; empty when none does."""
    for name in sorted({*there, *here}):
        if there.get(name) != here.get(name):
            return f"it is for {name} {there.get(name, 'unknown')}, here it is {here.get(name, 'unknown')}"
    return ""


def open_form(bundle: Bundle, form: PreparedForm, target: Target, verify: Verify) -> Session | str:
    """A session on ``form``, or in words why the engine did not take it.

    Raises:
        InvalidBundle: a file of it was changed.
    """
    check_variant(bundle, form, verify)
    path = Path(bundle.model_file(form))
    try:
        return registry.provider(target.provider).open_form(path, target, str(path))
    except (InvalidBundle, InvalidModel):
        raise
    except ToolkitError as exc:
        return f"the prepared form for {form.target} is not used: {exc}"
