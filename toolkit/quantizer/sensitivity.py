"""Which nodes hurt when they are narrowed, and how few of them have to stay in float for the budget to hold.

Noise that single nodes add at the outputs is small and nearly independent, so that the noise of a group is about the
sum of theirs. A best-first search through halves of the graph therefore finds the most harmful nodes with a few runs
each, where trying every node on its own would take as many runs as there are nodes.

Source: the additive noise model of Zhou et al., Adaptive Quantization for Deep Neural Network (AAAI 2018), section 3.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence

from toolkit.errors import ToolkitError
from toolkit.quantizer.job import Job
from toolkit.quantizer.trying import Bench, Candidate

MOST_RUNS = 96
"""Partly quantized models that are tried at most, whatever the size of the graph."""
MOST_IN_FLOAT = 0.5
"""Of the nodes: with more of them in float there is little left to gain."""
_REASON = "narrowing it costs too much accuracy"
_OTHER = "not under test"

Judge = Callable[[Candidate], Candidate]


def within_budget(job: Job, bench: Bench, failed: Candidate, judge: Judge) -> Candidate | None:
    """``failed`` with its most harmful nodes back in float, as few as it takes; None where that does not help.

    Args:
        judge: says, as the trial's refusal, whether a candidate keeps the budget.
    """
    recipe = failed.recipe
    if recipe.without is None or not failed.nodes:
        return None
    most = max(1, math.floor(len(failed.nodes) * MOST_IN_FLOAT))
    worst = most_harmful(failed.nodes, lambda nodes: noise(job, bench, failed, nodes), MOST_RUNS)
    in_float: dict[str, str] = {}
    for count in _steps(most):
        while len(in_float) < count and (node := next(worst, None)) is not None:
            in_float[node] = _REASON
        found = bench.attempt(recipe.without(dict(in_float)), judge)
        if isinstance(found, Candidate) and not found.trial.refusal:
            return found
        if len(in_float) < count:
            break
    return None


def _steps(most: int) -> Iterator[int]:
    """1, 2, 3, 5, 8, … up to ``most``: each step costs a whole evaluation."""
    low, high = 1, 2
    while low < most:
        yield low
        low, high = high, low + high
    yield most


def most_harmful(nodes: Sequence[str], harm: Callable[[Sequence[str]], float], runs: int) -> Iterator[str]:
    """``nodes``, the most harmful first, as far as ``runs`` calls of ``harm`` get.

    Args:
        harm: of a part of the nodes; about the sum of what its nodes do.
    """
    # Equal harm falls to the earlier part of the graph, so that the order never depends on luck.
    parts: list[tuple[float, int, int]] = [(-math.inf, 0, len(nodes))]
    while parts:
        _, start, end = heapq.heappop(parts)
        if end - start == 1:
            yield nodes[start]
            continue
        middle = (start + end) // 2
        for first, last in ((start, middle), (middle, end)):
            if runs <= 0:
                return
            runs -= 1
            heapq.heappush(parts, (-harm(nodes[first:last]), first, last))


def noise(job: Job, bench: Bench, whole: Candidate, nodes: Sequence[str]) -> float:
    """Noise over signal at the worst output when of all nodes of ``whole`` only ``nodes`` are narrowed."""
    assert whole.recipe.without is not None
    others = dict.fromkeys([name for name in whole.nodes if name not in set(nodes)], _OTHER)
    job.say(f"looking for the nodes that cost most accuracy: {len(nodes)} of {len(whole.nodes)}")
    try:
        found = bench.distance(whole.recipe.without(others))
    except ToolkitError:
        return math.inf
    return 0.0 if found is None else 10 ** (-found / 10)
