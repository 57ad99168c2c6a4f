"""What sets two environments apart, fact by fact: why their numbers cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from toolkit.errors import UsageError
from toolkit.profiler.environment import Environment

_NOT_FACTS = ("fingerprint", "state")
ABSENT = "absent"


class Difference(msgspec.Struct, frozen=True):
    """One fact of the environment, as text, on either side."""

    fact: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.fact} {self.before} → {self.after}"


def differences(before: Environment, after: Environment) -> list[Difference]:
    """Every fact in which the two differ, packages and variables one by one; none where numbers are comparable."""
    old, new = (_facts(item) for item in (before, after))
    found = [
        Difference(fact, old.get(fact, ABSENT), new.get(fact, ABSENT))
        for fact in dict.fromkeys((*old, *new))
        if old.get(fact, ABSENT) != new.get(fact, ABSENT)
    ]
    if not found and before.fingerprint != after.fingerprint:
        found.append(Difference("fingerprint (of facts that one of them did not write down)",
                                before.fingerprint, after.fingerprint))  # fmt: skip
    return found


def _facts(environment: Environment) -> dict[str, str]:
    plain: Mapping[str, Any] = msgspec.to_builtins(environment)
    return {
        name: text
        for key, value in plain.items()
        if key not in _NOT_FACTS
        for name, text in _flat(key.replace("_", " "), value)
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Names and texts of ``value``: of a table by key, of a list of tables by number, of a list of words by word."""
    if isinstance(value, Mapping):
        singular = name.removesuffix("s")
        for key, item in value.items():
            yield f"{singular} {key}", str(item)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        for index, item in enumerate(value):
            yield from _flat(f"{name.removesuffix('s')} {index}", item)
    elif isinstance(value, list | tuple):
        yield from ((f"{name.removesuffix('s')} {item}", "present") for item in value)
    else:
        yield name, "unknown" if value is None else str(value)


def listed(found: list[Difference], limit: int = 8) -> str:
    """``found`` as one clause for a message."""
    more = f"; and {len(found) - limit} more" if len(found) > limit else ""
    return "; ".join(map(str, found[:limit])) + more


def require_same(before: Environment, after: Environment, where: str, next_step: str) -> None:
    """Refuse to compare numbers of different environments.

    Raises:
        UsageError: naming what differs.
    """
    found = differences(before, after)
    if found:
        raise UsageError("measured in different environments", where=where, got=listed(found), next_step=next_step)
