"""How fast a machine could run a node at most: the roofline model, with the caches for a second memory.

The least time is that of the arithmetic at the measured peak or of the traffic at the measured bandwidths, whichever is
longer. Of the traffic, as many bytes as the last-level cache holds may come from there, the rest has to come from
memory: so the roof falls gently where arrays outgrow the cache, and none is too low because an array was still there.

Source: Williams, Waterman, Patterson, "Roofline", CACM 52 (2009).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

import msgspec

from toolkit.graph.node_cost import RegionCost
from toolkit.profiler.records import PeakRecord

Bound = Literal["compute", "memory", ""]


class Roof(NamedTuple):
    """Least time of a node in nanoseconds, and what sets it."""

    least_ns: float
    bound: Bound


def peak_for(precision: str, target: str, peaks: Iterable[PeakRecord]) -> PeakRecord | None:
    """The peak of ``precision`` on ``target``; where that was not measured, the target's bandwidths alone."""
    own = [peak for peak in peaks if peak.target == target]
    for peak in own:
        if peak.precision == precision:
            return peak
    return msgspec.structs.replace(own[0], precision=precision, flops_per_s=None) if own else None


def roof(cost: RegionCost, peak: PeakRecord, operators: Collection[str] = ()) -> Roof | None:
    """The roof over a node; None where its arithmetic or the machine's peak is not known, or it does nothing.

    Args:
        operators: what the node runs, since convolutions have kernels, and so a roof, of their own.
    """
    flops_per_s = _best(peak.flops_per_s, peak.conv_flops_per_s if "Conv" in operators else None)
    if cost.flops is None or (cost.flops and not flops_per_s):
        return None
    compute = 1e9 * cost.flops / flops_per_s if flops_per_s else 0.0
    memory = traffic_ns(cost.read_bytes + cost.written_bytes, peak)
    if memory is None or not (compute or memory):
        return None
    return Roof(compute, "compute") if compute >= memory else Roof(memory, "memory")


def traffic_ns(count: int, peak: PeakRecord) -> float | None:
    """Least time for moving ``count`` bytes; None where no bandwidth was measured."""
    far = _best(peak.bytes_per_s, peak.read_bytes_per_s)
    if far is None:
        return None
    near = max(far, _best(peak.cached_bytes_per_s, peak.cached_read_bytes_per_s) or far)
    cached = min(count, peak.cache_bytes)
    return 1e9 * (cached / near + (count - cached) / far)


def _best(*rates: float | None) -> float | None:
    return max((rate for rate in rates if rate), default=None)
