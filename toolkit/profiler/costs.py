"""What a machine costs and draws, as its user says in ``machine.toml``: nobody else knows.

::

    price_per_hour = 0.34     # of the whole machine, with currency
    currency = "EUR"
    watts = 65                # drawn while it works
    idle_watts = 20           # drawn while it does not; optional
"""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path

import msgspec

from toolkit.errors import UsageError
from toolkit.files import existing_file
from toolkit.profiler.records import EnergyRecord, PriceRecord
from toolkit.tensors import nearest

SOURCE = "machine.toml"
_MILLION = 1_000_000


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Price per hour in ``currency`` and watts under load and at rest; None where the user does not say."""

    price_per_hour: float | None = None
    currency: str = ""
    watts: float | None = None
    idle_watts: float | None = None

    def price(self, samples_per_s: float) -> PriceRecord | None:
        """Of a million samples, at this throughput around the clock; None without a price."""
        if self.price_per_hour is None or not samples_per_s:
            return None
        return PriceRecord(per_million=self.price_per_hour / 3600 / samples_per_s * _MILLION, currency=self.currency)

    def energy(self, samples_per_s: float) -> EnergyRecord | None:
        """Of a sample, from the watts that the user says; None without."""
        if self.watts is None or not samples_per_s:
            return None
        return EnergyRecord(
            joules=self.watts / samples_per_s, watts=self.watts, idle_watts=self.idle_watts, source=SOURCE
        )


def machine_of(machine: str | os.PathLike[str] | Machine | None) -> Machine:
    """What a caller says of the machine: a file, the facts themselves, or nothing.

    Raises:
        FileProblem, UsageError: as :func:`read_machine`.
    """
    if machine is None or isinstance(machine, Machine):
        return machine or Machine()
    return read_machine(os.fspath(machine))


def read_machine(path: str | Path) -> Machine:
    """Read a user's ``machine.toml``.

    Raises:
        FileProblem: missing or unreadable.
        UsageError: not TOML, an unknown key, a value of the wrong type, or one that makes no sense.
    """
    path = existing_file(path, "machine file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError("not a TOML file", where=path, got=exc) from exc
    known = Machine.__struct_fields__
    for key in content:
        if key not in known:
            raise UsageError("unknown key", where=path, got=key, expected=nearest(key, known))
    try:
        found = msgspec.convert(content, Machine)
    except msgspec.ValidationError as exc:
        raise UsageError("a value does not fit", where=path, got=exc) from exc
    _check(found, path)
    return found


def _check(machine: Machine, path: Path) -> None:
    for name in ("price_per_hour", "watts", "idle_watts"):
        value = getattr(machine, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} is no amount", where=path, got=value, expected="0 or more")
    if machine.watts == 0:
        raise UsageError("no machine works on 0 watts", where=path, next_step="leave watts out if you do not know them")
    if machine.price_per_hour is not None and not machine.currency:
        raise UsageError("a price needs a currency", where=path, expected='currency = "EUR"')
    if machine.watts is not None and (machine.idle_watts or 0) > machine.watts:
        raise UsageError("idle_watts are above watts", where=path, got=f"{machine.idle_watts:g} and {machine.watts:g}")
