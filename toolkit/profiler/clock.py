"""The clock that latencies are read from, and how fine it is."""

from __future__ import annotations

import time
from functools import cache

now_ns = time.perf_counter_ns
"""Monotonic, and not adjusted while it runs; its zero means nothing."""


@cache
def reading_cost_ns() -> int:
    """What two readings one after the other differ by: the floor under every sample. Median of 1000 pairs."""
    gaps = sorted(-now_ns() + now_ns() for _ in range(1000))
    return gaps[len(gaps) // 2]
