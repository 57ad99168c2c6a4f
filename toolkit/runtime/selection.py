"""Which provider and which variant an application gets, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from toolkit.errors import NotApplicable, ProviderUnavailable
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.targets import Target

if TYPE_CHECKING:
    from toolkit.bundle.manifest import Manifest, Variant


class Choice(msgspec.Struct, frozen=True):
    """A variant (None for a bare ONNX file) on a target."""

    target: Target
    variant: Variant | None = None


def candidates(wanted: str | Target, fallback: Sequence[str | Target], manifest: Manifest | None) -> tuple[Choice, ...]:
    """What to try, in order: the wanted target first, then each fallback.

    Raises:
        ProviderUnavailable: ``wanted`` is "auto" and no provider is there.
        NotApplicable: the bundle has no variant for anything that was asked for.
    """
    choices: list[Choice] = []
    for item in (wanted, *fallback):
        targets = (
            _automatic(manifest) if item == "auto" else (item if isinstance(item, Target) else registry.target(item),)
        )
        choices += [choice for target in targets if (choice := _choice(target, manifest)) is not None]
    if not choices and manifest is not None:
        offered = sorted({target.provider for variant in manifest.variants for target in variant.targets})
        raise NotApplicable(
            "the bundle has no variant for what was asked",
            where=manifest.name,
            got=_name(wanted),
            expected=f"one of: {', '.join(offered)}",
        )
    return tuple(choice for index, choice in enumerate(choices) if choice not in choices[:index])


def _name(item: str | Target) -> str:
    return item if isinstance(item, str) else item.name


def _automatic(manifest: Manifest | None) -> tuple[Target, ...]:
    """The providers that are there: measured ones by speed, then in the order in which the bundle names them, and
    without a bundle in the registry's stated order."""
    found, missing = [], []
    for name in registry.automatic():
        answer = registry.provider(name).probe()
        if isinstance(answer, Unavailable):
            missing.append(f"{name}: {answer.reason}")
        else:
            found.append(Target(name=name, provider=name))
    if not found:
        raise ProviderUnavailable(
            f"no provider is available ({'; '.join(missing)})", next_step="pip install onnxruntime"
        )
    if manifest is not None:
        found.sort(key=lambda target: _rank(target.provider, manifest))
    return tuple(found)


def _rank(provider: str, manifest: Manifest) -> tuple[float, int]:
    """The best latency that the bundle records for ``provider`` on hardware like this, infinity without one, and its
    place in the bundle."""
    pairs = [(variant, target) for variant in manifest.variants for target in variant.targets]
    own = [_latency_ns(variant, target) for variant, target in pairs if target.provider == provider]
    named = [target.provider for _, target in pairs]
    return min(own, default=float("inf")), named.index(provider) if provider in named else len(named)


def _choice(target: Target, manifest: Manifest | None) -> Choice | None:
    """The best variant for ``target``: measured fastest on its provider on hardware like this, else the first that was
    made for it."""
    if manifest is None:
        return Choice(target)
    fitting = [
        (variant, own)
        for variant in manifest.variants
        if target.allows(variant.precision)
        for own in variant.targets
        if own.provider == target.provider
    ]
    if not fitting:
        return None
    variant, own = min(fitting, key=lambda pair: _latency_ns(pair[0], pair[1]))
    # What the user asked for by name stands; a bare provider takes the options that the variant was measured with.
    bare = target == Target(name=target.name, provider=target.provider, device=target.device)
    chosen = msgspec.structs.replace(own, device=target.device or own.device) if bare else target
    return Choice(chosen, variant)


def _latency_ns(variant: Variant, own: Target) -> float:
    """What the bundle says that ``variant`` takes on ``own``, measured on hardware like this; else infinity.

    A latency that was taken elsewhere says nothing here: int8 is four times as fast on one CPU and slower on another.
    """
    measured = [item for item in variant.measurements if item.target == own.name]
    if not measured:
        return float("inf")
    from toolkit.runtime.fingerprint import alike, here  # reads manifests, which a bare file does without

    this = here(own)
    return min((item.p50_ns for item in measured if alike(item.fingerprint, this)), default=float("inf"))
