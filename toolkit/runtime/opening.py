"""Open one variant of a bundle, with the checks that files from strangers need."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.bundle.manifest import MAX_THREADS, Variant
from toolkit.bundle.reader import Bundle, check_variant
from toolkit.errors import InvalidBundle
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.runtime.bare import Opening
from toolkit.runtime.forms import fitting_form, open_form
from toolkit.targets import Target
from toolkit.tensors import TensorSpec


def open_variant(bundle: Bundle, variant: Variant, target: Target, opening: Opening) -> Session:
    """A session on ``variant``: on the form that was prepared for this machine, else on the portable file.

    Raises:
        InvalidBundle, InvalidModel: a file was changed or does not hold together, or the manifest describes other
            tensors than the model has, or sets options that no bundle may set.
    """
    engine = registry.provider(target.provider)
    _check_options(bundle, variant, target)
    engine.require(target)  # before hashing gigabytes
    notes: tuple[str, ...] = ()
    if opening.prepared is not False and variant.prepared:
        found = fitting_form(variant, target, trust=opening.trust_prepared)
        notes = found.reasons
        if found.form is not None:
            session = open_form(bundle, found.form, target, opening.verify)
            if isinstance(session, Session):
                session.notes += (*notes, f"opened the form prepared for {found.form.target}")
                return _described(session, bundle)
            notes += (session,)
    check_variant(bundle, variant, opening.verify)
    # A bundle that has forms for this target is meant to be opened from one.
    rebuilt = opening.prepared or (opening.prepared is None and bool(notes))
    session = engine.open(bundle.model_file(variant), target, prepared=rebuilt)
    session.notes += notes
    return _described(session, bundle)


def _check_options(bundle: Bundle, variant: Variant, target: Target) -> None:
    """Refuse what a target from a bundle may not ask: files elsewhere, and more threads than any machine has.

    A target of the user's own may ask for anything.
    """
    asked = [own.engine_options for own in variant.targets if own.engine_options == target.engine_options]
    if not asked or not target.engine_options:
        return
    outward = registry.provider(target.provider).outward_options
    for option, value in target.engine_options.items():
        if option in outward:
            raise InvalidBundle(
                "the bundle sets an option that reaches outside it",
                where=bundle.path,
                got=option,
                next_step="set it in a target of your own",
            )
        if isinstance(value, int) and "num" in option.lower() and not 0 <= value <= MAX_THREADS:
            raise InvalidBundle("an option is out of range", where=bundle.path, got=f"{option} = {value}")


def _described(session: Session, bundle: Bundle) -> Session:
    """Give the session what only the manifest knows: names of dims (OpenVINO drops them), labels, preprocessing."""
    manifest = bundle.manifest
    try:
        session.inputs = _named(session.inputs, manifest.inputs, "input", bundle)
        session.outputs = _named(session.outputs, manifest.outputs, "output", bundle)
    except InvalidBundle:
        session.close()
        raise
    session.labels = manifest.labels
    session.preprocessing = manifest.preprocessing
    session.state = dict(manifest.state)
    return session


def _named(
    found: Sequence[TensorSpec], named: Sequence[TensorSpec], kind: str, bundle: Bundle
) -> tuple[TensorSpec, ...]:
    """The engine's specs with the manifest's names of dims, in the engine's order.

    Raises:
        InvalidBundle: the manifest's do not describe the same tensors.
    """
    by_name = {spec.name: spec for spec in named}
    if set(by_name) != {spec.name for spec in found}:
        return tuple(found)  # an IR may have lost its names
    for spec in found:
        if not _same(spec, by_name[spec.name]):
            raise InvalidBundle(
                f"the manifest describes another {kind} than the model has",
                where=bundle.path,
                got=by_name[spec.name],
                expected=spec,
            )
    return tuple(by_name[spec.name] for spec in found)


def _same(found: TensorSpec, named: TensorSpec) -> bool:
    """Whether ``named`` is the same tensor: its type and rank, and the sizes that both fix."""
    if found.dtype != named.dtype:
        return False
    if found.shape is None or named.shape is None:
        return found.shape is None or named.shape is None
    return len(found.shape) == len(named.shape) and all(
        not isinstance(one, int) or not isinstance(other, int) or one == other
        for one, other in zip(found.shape, named.shape, strict=True)
    )
