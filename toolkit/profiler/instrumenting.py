"""The worker's side of timing nodes: one session as users run it and one with the engine's instruments on, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.errors import NotApplicable
from toolkit.profiler.cases import Case
from toolkit.profiler.clock import now_ns
from toolkit.profiler.protocol import Instrument, NodesTimed
from toolkit.profiler.quiet import wait_until_quiet
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.tensors import Feeds

ROUNDS = 6
"""Turns that each of the two sessions gets, so that what disturbs the machine disturbs both."""
ROUNDS_ALONE = 20
"""Where the fastest round is looked for: short enough for some to be undisturbed."""
_WARM_UP = 2

Run = Callable[[Feeds], object]


def instrument(session: Session, case: Case, feeds: Sequence[Feeds], request: Instrument) -> NodesTimed:
    """Time the nodes of ``case`` over several rounds.

    Raises:
        NotApplicable: the engine has no instruments that tell nodes apart.
    """
    provider = registry.provider(case.target.provider)
    found = None if case.opener else provider.instruments(Path(case.path), case.target, Path(request.folder))
    if found is None:
        raise NotApplicable(f"{provider.name} has no instruments that tell the model's nodes apart")
    try:
        for index in range(_WARM_UP):
            found.run(feeds[index % len(feeds)])
        found.start()
        rounds = ROUNDS_ALONE if request.alone else ROUNDS
        turn_ns = request.duration_ns // rounds // (1 if request.alone else 2)
        most = max(1, found.most_runs // rounds)
        plain: list[int] = []
        instrumented: list[int] = []
        for _ in range(rounds):
            if not request.alone:
                plain += _turn(session.run, feeds, turn_ns, most)
            instrumented += _turn(found.run, feeds, turn_ns, most)
            found.mark()
        reading = found.read()
    finally:
        found.close()
    shapes = {name: list(array.shape) for name, array in feeds[0].items()}
    return NodesTimed(plain_ns=plain, instrumented_ns=instrumented, reading=reading, shapes=shapes)


def _turn(run: Run, feeds: Sequence[Feeds], duration_ns: int, most: int) -> list[int]:
    """Latencies of single calls; waits until the threads of the session before sleep."""
    wait_until_quiet()
    samples: list[int] = []
    after = now_ns()
    end = after + duration_ns
    while len(samples) < most and (after < end or not samples):
        feed = feeds[len(samples) % len(feeds)]
        before = now_ns()
        run(feed)
        after = now_ns()
        samples.append(after - before)
    return samples


def typical_ns(timed: NodesTimed) -> tuple[float, float, float]:
    """Median with and without instruments, and what the nodes' times are to be multiplied by to be of typical runs.

    Where the engine only gives averages, a few interrupted runs are in all of them; they are taken for evenly spread.
    """
    instrumented = statistics.median(timed.instrumented_ns)
    plain = statistics.median(timed.plain_ns) if timed.plain_ns else instrumented
    factor = 1.0 if timed.reading.typical else instrumented / statistics.fmean(timed.instrumented_ns)
    return plain, instrumented, factor
