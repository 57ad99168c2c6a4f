"""The hardware and software here, as a bundle records them beside a measurement, and whether another is like it."""

from __future__ import annotations

import platform

import toolkit.machine as machine
from toolkit.bundle.manifest import Fingerprint
from toolkit.providers import registry
from toolkit.providers.base import Available
from toolkit.targets import Target


def here(target: Target) -> Fingerprint:
    """The fingerprint of a measurement that is taken now, on ``target``."""
    found = registry.availability(target)
    return Fingerprint(
        cpu=machine.cpu_model(),
        cores=target.threads or machine.usable_cores(),
        device=target.device or (found.devices[0] if isinstance(found, Available) and found.devices else ""),
        engine=found.version if isinstance(found, Available) else "",
        system=platform.system(),
    )


def alike(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Whether what was measured fastest on ``one`` can be expected to be fastest on ``other``.

    The engine's version may differ: it moves times by less than another CPU, device or number of cores does.
    """
    if one is None or other is None:
        return False
    return (one.cpu, one.cores, one.device, one.system) == (other.cpu, other.cores, other.device, other.system)
