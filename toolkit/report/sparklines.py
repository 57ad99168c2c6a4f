"""Distributions of latency in one line of text each, all on one logarithmic axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from toolkit.profiler.records import ProfileReport
from toolkit.report.columns import columns
from toolkit.report.names import Family, families
from toolkit.report.numbers import duration

_LEVELS = " ▁▂▃▄▅▆▇"
_CELLS = 44
_TAIL = 0.999


def sparklines(report: ProfileReport) -> Iterator[str]:
    """A heading with the ends of the axis and a line per case, for every family with samples."""
    for family in families(report):
        cases = [case for case in family.cases if len(case.samples_ns) > 1]
        if cases:
            yield from _family(family, {family.words[case.id]: case.samples_ns for case in cases})
            yield ""


def _family(family: Family, named: dict[str, Sequence[int]]) -> Iterator[str]:
    low = min(min(samples) for samples in named.values())
    high = max(float(np.quantile(samples, _TAIL)) for samples in named.values())
    edges = np.geomspace(max(low, 1), max(high, low * 1.01, 2), _CELLS + 1)
    yield f"Calls, {family.title}:"
    rows = [(f"  {name}", sparkline(samples, edges)) for name, samples in named.items()]
    left, right = duration(float(edges[0])), duration(float(edges[-1]))
    axis = f"{left}{'log'.center(_CELLS - len(left) - len(right))}{right}"
    yield from columns([*rows, ("", axis)])


def sparkline(samples: Sequence[int], edges: npt.NDArray[np.float64]) -> str:
    """Counts of ``samples`` between ``edges``, as heights; their square root, so that a tail of a few calls shows."""
    counts, _ = np.histogram(samples, edges)
    heights = np.ceil(np.sqrt(counts / max(1, counts.max())) * (len(_LEVELS) - 1)).astype(int)
    return "".join(_LEVELS[height] for height in heights)
