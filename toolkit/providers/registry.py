"""All providers by name. Adding one is a file beside this one and a line here."""

from __future__ import annotations

import importlib
from functools import cache

from toolkit.errors import InvalidTarget
from toolkit.providers.base import Availability, Provider
from toolkit.targets import ALIASES, Target, find_target, shipped_targets
from toolkit.tensors import nearest

# name: (module, class). Modules are imported when the provider is first used, engines later still.
_PROVIDERS: dict[str, tuple[str, str]] = {
    "cpu": ("toolkit.providers.cpu", "CpuProvider"),
    "cuda": ("toolkit.providers.cuda", "CudaProvider"),
    "tensorrt": ("toolkit.providers.tensorrt", "TensorrtProvider"),
    "openvino": ("toolkit.providers.openvino", "OpenvinoProvider"),
    "torch": ("toolkit.providers.torch_", "TorchProvider"),
    "null": ("toolkit.providers.null", "NullProvider"),
}
NAMES = tuple(_PROVIDERS)


@cache
def provider(name: str) -> Provider:
    """The provider called ``name`` (or an ONNX Runtime alias of it).

    Raises:
        InvalidTarget: there is none; the nearest name is suggested.
    """
    name = ALIASES.get(name, name)
    if name not in _PROVIDERS:
        raise InvalidTarget("unknown provider", got=repr(name), expected=nearest(name, NAMES))
    module, cls = _PROVIDERS[name]
    found = getattr(importlib.import_module(module), cls)()
    assert isinstance(found, Provider)
    return found


def target(text: str) -> Target:
    """The target that ``text`` means (see :func:`toolkit.targets.find_target`), checked against its provider."""
    found = find_target(text, NAMES)
    if found.provider not in NAMES:
        raise InvalidTarget(
            "unknown provider", where=text, got=repr(found.provider), expected=nearest(found.provider, NAMES)
        )
    provider(found.provider).check_target(found)
    return found


def targets(texts: tuple[str, ...]) -> tuple[Target, ...]:
    """Like :func:`target` for several; ``all`` stands for every shipped target, those that are not there included."""
    found: list[Target] = []
    for text in texts:
        found += shipped_targets().values() if text == "all" else [target(text)]
    return tuple(item for index, item in enumerate(found) if item not in found[:index])


def availability(item: Target) -> Availability:
    return provider(item.provider).availability(item)


def automatic() -> tuple[str, ...]:
    """Providers that ``provider="auto"`` may choose, in the stated order: fastest hardware first."""
    ranked = [(provider(name).rank, name) for name in NAMES]
    return tuple(name for rank, name in sorted((rank, name) for rank, name in ranked if rank is not None))
