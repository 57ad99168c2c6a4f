"""Which of several models is fastest on a target: all open at once, taking turns in short blocks.

A quick look in one process, to choose by; ``toolkit profile`` measures with a process per case and several of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from toolkit.profiler.clock import now_ns
from toolkit.profiler.pairing import FEWEST_ROUNDS, PairedRatio, paired_ratio
from toolkit.profiler.quiet import wait_until_quiet
from toolkit.providers.session import Session
from toolkit.tensors import Feeds

BLOCK_NS = 20_000_000
"""A turn lasts about this long, and is at least :data:`_FEWEST_CALLS` calls."""
BUDGET_S = 8.0
MOST_ROUNDS = 60
_FEWEST_CALLS = 3
_WARMUP_CALLS = 2  # per block: the caches and cores hold what the previous turn left there


def race(
    baseline: Session, candidates: Mapping[str, Session], feeds: Sequence[Feeds], budget_s: float = BUDGET_S
) -> dict[str, PairedRatio]:
    """Time of each candidate over that of ``baseline``, with an interval and a verdict.

    Args:
        feeds: inputs that rotate, so that none is always in the cache.
        budget_s: time to spend in all; at least :data:`FEWEST_ROUNDS` rounds are run.
    """
    sessions = {"": baseline, **candidates}
    calls = {name: _calls_per_block(session, feeds) for name, session in sessions.items()}
    logs: dict[str, list[float]] = {name: [] for name in candidates}
    order, end = list(sessions), now_ns() + int(budget_s * 1e9)
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and now_ns() > end:
            break
        order = order[1:] + order[:1]  # so that nobody always follows the same neighbour's leavings
        times = {name: _block(sessions[name], feeds, calls[name]) for name in order}
        for name in candidates:
            logs[name].append(math.log(times[name] / times[""]))
    found = {name: paired_ratio({0: values}) for name, values in logs.items()}
    return {name: ratio for name, ratio in found.items() if ratio is not None}


def _calls_per_block(session: Session, feeds: Sequence[Feeds]) -> int:
    session(feeds[0])
    start = now_ns()
    session(feeds[0])
    return max(_FEWEST_CALLS, min(1000, BLOCK_NS // max(1, now_ns() - start)))


def _block(session: Session, feeds: Sequence[Feeds], calls: int) -> float:
    """Median time of a call in nanoseconds, with the threads of the previous turn asleep.

    They spin on for 40 to 90 ms on ONNX Runtime; with that on one of two cores, a file of 1.03 × was taken for 1.4 ×.
    """
    wait_until_quiet()
    for index in range(_WARMUP_CALLS):
        session(feeds[index % len(feeds)])
    samples = []
    for index in range(calls):
        start = now_ns()
        session(feeds[index % len(feeds)])
        samples.append(now_ns() - start)
    return max(1.0, median(samples))
