"""Which packages are installed, and what is wrong with the set: too old, missing for an extra, or two in one place.

Floors and extras come from this project's own metadata, so that pyproject.toml stays the only place that states them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import metadata

import msgspec

PROJECT = "onnx-toolkit"
# Import names that more than one distribution on PyPI installs into; two of them overwrite each other's files.
_SHARED = ("onnxruntime", "openvino", "onnx", "torch", "tensorrt")
# Packages of which one is enough, and two are too many.
_ALTERNATIVES = {"onnxruntime": "onnxruntime-gpu", "onnxruntime-gpu": "onnxruntime"}
_REQUIREMENT = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=\s*(?P<floor>[\d.]+))?[^;]*(?:;(?P<marker>.*))?$"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]")


class Requirement(msgspec.Struct, frozen=True):
    """One line of this project's metadata: a package, the oldest release that will do, the extra that wants it."""

    package: str
    floor: str
    extra: str


class Problem(msgspec.Struct, frozen=True):
    what: str
    remedy: str


def version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def requirements() -> tuple[Requirement, ...]:
    """What this project asks for, this project's own extras left out; empty where it runs without being installed."""
    try:
        lines = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return ()
    found = (_requirement(line) for line in lines)
    return tuple(item for item in found if item is not None and item.package != PROJECT)


def _requirement(line: str) -> Requirement | None:
    match = _REQUIREMENT.match(line)
    if match is None:
        return None
    extra = _EXTRA.search(match["marker"] or "")
    return Requirement(match["name"].lower(), match["floor"] or "", extra["extra"] if extra else "")


def release(text: str) -> tuple[int, ...]:
    """The release of a version as numbers: ``2026.4.1-22061-abc`` is (2026, 4, 1)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def too_old() -> tuple[Problem, ...]:
    """Packages that are older than this project's floor."""
    return tuple(
        Problem(f"{item.package} {found} is older than {item.floor}", f"pip install -U '{item.package}>={item.floor}'")
        for item in dict.fromkeys(requirements())
        if item.floor and (found := version(item.package)) is not None and release(found) < release(item.floor)
    )


def clashes() -> tuple[Problem, ...]:
    """Import names that several installed distributions share: whichever was installed last has won, in part."""
    owners = metadata.packages_distributions()
    problems = []
    for name in _SHARED:
        wheels = sorted({_canonical(owner) for owner in owners.get(name, ())})
        if len(wheels) > 1:
            listed = " and ".join(f"{wheel} {version(wheel)}" for wheel in wheels)
            remedy = f"pip uninstall -y {' '.join(wheels)}, then install the one you want"
            problems.append(Problem(f"{listed} are both installed and overwrite each other's files", remedy))
    return tuple(problems)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def missing_by_extra(extras: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For each of ``extras`` that is not wholly installed: the packages that it would bring."""
    missing = {
        extra: tuple(item.package for item in requirements() if item.extra == extra and not _is_there(item.package))
        for extra in extras
    }
    return {extra: packages for extra, packages in missing.items() if packages}


def _is_there(package: str) -> bool:
    return any(version(name) is not None for name in (package, _ALTERNATIVES.get(package, package)))


def extras() -> tuple[str, ...]:
    """Names of the extras that bring packages of their own, in the order of the metadata."""
    return tuple(dict.fromkeys(item.extra for item in requirements() if item.extra))
