"""Values as the axes of charts name them: round, short, with their unit."""

from __future__ import annotations

from toolkit.report.numbers import time_unit

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def clock(nanoseconds: float) -> str:
    """``2.5 ms``, without trailing zeros."""
    unit, length = time_unit(nanoseconds * (1 + 1e-9))
    return f"{float(f'{nanoseconds / length:.6g}'):g} {unit}"


def prefixed(value: float, unit: str) -> str:
    """``20 MB`` for 2e7 and B, ``300 GFLOP/s``."""
    factor, prefix = next((pair for pair in _PREFIXES if abs(value) >= pair[0] * (1 - 1e-9)), (1.0, ""))
    return f"{float(f'{value / factor:.6g}'):g} {prefix}{unit}"


def plain(value: float) -> str:
    """Up to six digits, never as 1e+06 below ten millions."""
    return f"{float(f'{value:.6g}'):.10g}"
