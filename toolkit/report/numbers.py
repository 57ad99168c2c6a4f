"""Numbers as people read them: three digits and a unit."""

from __future__ import annotations

_TIME = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
_SIZE = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


def duration(nanoseconds: float) -> str:
    """``12.3 ms``."""
    unit, size = time_unit(nanoseconds)
    return f"{digits(nanoseconds / size)} {unit}"


def time_unit(nanoseconds: float) -> tuple[str, float]:
    """The unit in which ``nanoseconds`` is 1 or more, and its length in nanoseconds."""
    return next((pair for pair in _TIME if nanoseconds >= pair[1]), _TIME[-1])


def duration_with_interval(nanoseconds: float, interval: tuple[float, float] | None) -> str:
    """``12.3 ms [12.1, 12.6]``, the interval in the same unit."""
    unit, size = time_unit(nanoseconds)
    text = f"{digits(nanoseconds / size)} {unit}"
    return text if interval is None else f"{text} [{digits(interval[0] / size)}, {digits(interval[1] / size)}]"


def ratio_with_interval(ratio: float, interval: tuple[float, float] | None) -> str:
    """``0.48 [0.47, 0.49]``."""
    text = digits(ratio)
    return text if interval is None else f"{text} [{digits(interval[0])}, {digits(interval[1])}]"


def size(count: float) -> str:
    """``104 MB``, in powers of ten."""
    unit, factor = next((pair for pair in _SIZE if count >= pair[1]), _SIZE[-1])
    return f"{digits(count / factor)} {unit}"


def digits(value: float) -> str:
    """Three significant digits, two below 1; never as 1e+03."""
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.0995 or value == 0 else 3
    return f"{value:.{decimals}f}"
