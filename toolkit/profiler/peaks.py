"""What a target can do at most on this machine: large products and passes over arrays, timed as operators are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec

import toolkit.machine as machine
from toolkit.graph.peak_models import Kind, write_convolution, write_passes, write_product
from toolkit.profiler.cases import Case
from toolkit.profiler.process import CaseEnded
from toolkit.profiler.records import PeakRecord
from toolkit.profiler.timing import Start, TimedNode, time_nodes
from toolkit.providers import registry
from toolkit.targets import Target

_DURATION_NS = 1_500_000_000
# Small products fit between two interruptions and into the caches of few cores; only large ones busy many cores.
_ROWS, _WIDTHS = 512, (512, 512, 1024, 2048, 2048, 512)
_IMAGE, _CHANNELS = 34, (128, 128, 256, 256)
# One float32 row of an array that is passed over; rows are what threads share.
_COLUMNS = 1024
_ROW_BYTES = 4 * _COLUMNS
# Where the kernel does not tell the sizes of the caches: those of a common server, per core and shared.
_USUAL_CACHES = (32 << 10, 1 << 20, 32 << 20)
# Against the last-level cache, and never more than this.
_FAR_FACTOR, _MOST_BYTES = 4, 512 << 20
KINDS: tuple[Kind, ...] = get_args(Kind)


def peaks(target: Target, precisions: Collection[str], start: Start) -> list[PeakRecord]:
    """Measure ``target``'s bandwidth, and its arithmetic in each of ``precisions`` that there is a product for.

    Raises:
        CaseEnded: the engine cannot run even the passes over arrays.
    """
    kinds = [kind for kind in KINDS if kind in precisions]
    # Twice, with other things between: a shared machine is not equally fast at any moment.
    first = {kind: _flops_per_s(target, kind, start, _PRODUCT) for kind in kinds}
    bandwidth = _bandwidth(target, start)
    found = []
    for kind in kinds:
        convolution = _flops_per_s(target, kind, start, _CONVOLUTION)
        product = _best(first[kind], _flops_per_s(target, kind, start, _PRODUCT))
        facts = {"precision": kind, "flops_per_s": product, "conv_flops_per_s": convolution}
        found.append(msgspec.structs.replace(bandwidth, **facts))
    return found or [bandwidth]


def _best(*rates: float | None) -> float | None:
    return max((rate for rate in rates if rate), default=None)


_PRODUCT = partial(write_product, rows=_ROWS, widths=_WIDTHS)
_CONVOLUTION = partial(write_convolution, size=_IMAGE, channels=_CHANNELS)


def _flops_per_s(target: Target, precision: Kind, start: Start, write: Callable[[Path, Kind], None]) -> float | None:
    """The best of what ``write`` writes that was executed in ``precision``; None where the engine has none."""
    rounds = precision in registry.provider(target.provider).inference_precisions
    # Where an engine rounds float32 files as it is told, that is how this precision is reached on it.
    kind: Kind = "float32" if rounds else precision
    # The product of one precision may be wanted on a target that rounds to another.
    rounding = precision if rounds else ""
    target = msgspec.structs.replace(target, inference_precision=rounding, precisions=())
    with tempfile.TemporaryDirectory(prefix="toolkit-peak-") as folder:
        path = Path(folder) / "product.onnx"
        write(path, kind)
        nodes = _timed(path, target, start)
    rates = [
        1e9 * item.cost.flops / item.node.best_ns
        for item in nodes
        if item.node.precision == precision and {"MatMul", "Conv"} & set(item.operators) and item.cost.flops
    ]
    return max(rates, default=None)


def _bandwidth(target: Target, start: Start) -> PeakRecord:
    caches = machine.cache_bytes() or _USUAL_CACHES
    sizes = [*_cached_sizes(caches), min(_FAR_FACTOR * caches[-1], _MOST_BYTES)]
    with tempfile.TemporaryDirectory(prefix="toolkit-peak-") as folder:
        path = Path(folder) / "passes.onnx"
        write_passes(path, [(max(1, size // _ROW_BYTES), _COLUMNS) for size in sizes])
        nodes = _timed(path, target, start)
    far = len(sizes) - 1
    copies, reads = dict(_rates(nodes, "copy")), dict(_rates(nodes, "read"))
    return PeakRecord(
        target=target.name,
        precision="",
        flops_per_s=None,
        bytes_per_s=copies.get(far),
        read_bytes_per_s=reads.get(far),
        cached_bytes_per_s=max((rate for index, rate in copies.items() if index != far), default=None),
        cached_read_bytes_per_s=max((rate for index, rate in reads.items() if index != far), default=None),
        cache_bytes=caches[-1],
    )


def _cached_sizes(caches: tuple[int, ...]) -> list[int]:
    """Arrays that fit into the caches of single cores, together, and into the one that they share."""
    own = (caches[-2] if len(caches) > 1 else caches[0]) * machine.usable_cores()
    return sorted({own // 2, min(own, caches[-1] // 2), caches[-1] // 8, caches[-1] // 2})


def _rates(nodes: list[TimedNode], stage: str) -> Iterator[tuple[int, float]]:
    """Index of each pass, and its bytes per second, of the nodes whose name begins with ``stage``."""
    for item in nodes:
        for name in item.nodes:
            kind, _, index = name.partition(":")
            if kind == stage and item.node.best_ns > 0:
                yield int(index), 1e9 * (item.cost.read_bytes + item.cost.written_bytes) / item.node.best_ns


def _timed(path: Path, target: Target, start: Start) -> list[TimedNode]:
    case = Case(model=path.name, path=str(path), target=target)
    return time_nodes(case, start, path.parent, _DURATION_NS, alone=True).nodes


def measured_peaks(target: Target, precisions: Collection[str], start: Start) -> tuple[list[PeakRecord], str]:
    """Like :func:`peaks`, with the reason where there are none."""
    try:
        return peaks(target, precisions, start), ""
    except CaseEnded as exc:
        return [], exc.reason
