"""One pass over the samples that records every tensor which any provider's placement may quantize.

The model runs on the cpu provider with those tensors as further outputs, in batches (or, where even one sample's
tensors are too large together, in groups of tensors) that keep within a memory limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import onnx_ir as ir

from toolkit.data import Dataset
from toolkit.evaluator.stepping import steps
from toolkit.graph.facts import input_specs
from toolkit.graph.shapes import Shapes, infer
from toolkit.providers.placement import shipped_rules
from toolkit.providers.session import Session
from toolkit.quantizer.calibration.histogram import StreamingHistogram
from toolkit.quantizer.calibration.observing import ObservingEngine
from toolkit.quantizer.calibration.record import CalibrationRecord, pack
from toolkit.quantizer.plan import make_plan
from toolkit.targets import Target
from toolkit.tensors import complete_dims

MEMORY_LIMIT_BYTES = 512 << 20
"""What the observed tensors of one run may take; the model itself comes on top."""
BATCH_BYTES = 64 << 20
"""Batches grow until their tensors take this much; larger ones were not faster (MobileNetV2, 32 samples)."""
VALUES_PER_SAMPLE = 1 << 14
"""Of larger tensors a regular part of about this size is counted per sample; extremes are exact all the same."""
LARGEST_BATCH = 32
_UNKNOWN_BYTES = 4 << 20  # assumed for tensors whose size inference does not find


class Origin(NamedTuple):
    """What a record says about where it comes from."""

    model: str
    model_sha256: str


def calibrate(
    model: ir.Model, data: Dataset, origin: Origin, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    progress: Callable[[int], None] | None = None,
) -> CalibrationRecord:  # fmt: skip
    """Run ``model`` over ``data`` once.

    Args:
        model: prepared (:mod:`toolkit.quantizer.preparing`).
        data: fed batch by batch; with state, one sample at a time.
        memory_limit_bytes: for the tensors that are observed in one run.
        progress: called with the number of samples done.

    Raises:
        InvalidData: no samples, a NaN among them, or the stream raised.
        ToolkitError: the model does not run on them.
    """
    shapes = infer(model)
    observed = observable_tensors(model, shapes)
    histograms = {name: StreamingHistogram(values_per_sample=VALUES_PER_SAMPLE) for name in observed}
    groups, batch_size = _fit(model, observed, memory_limit_bytes)
    engine = ObservingEngine(model, groups, histograms, shapes, data.state, data.name)
    done = 0
    with Session(engine, "cpu", Target(name="calibration", provider="cpu"), origin.model) as session:
        stream = data if data.state else data.batched(min(data.batch_size, batch_size))
        for batch, _ in steps(session, stream, session.inputs):
            done += batch.count
            if progress is not None:
                progress(done)
    tensors = {name: pack(histogram.distribution()) for name, histogram in histograms.items()}
    return CalibrationRecord(origin.model, origin.model_sha256, data.name, data.sha256, done, tensors)


def observable_tensors(model: ir.Model, shapes: Shapes) -> tuple[str, ...]:
    """Names of the tensors that any shipped placement may need the range of."""
    variants = [variant for rules in shipped_rules().values() for variant in rules.variants]
    return tuple(dict.fromkeys(name for variant in variants for name in make_plan(model, variant, shapes).tensors))


def _fit(model: ir.Model, observed: Sequence[str], limit: int) -> tuple[list[tuple[str, ...]], int]:
    """Groups of tensors and a batch size that keep the outputs of one run below ``limit`` bytes."""
    sizes = _bytes_per_sample(model, observed)
    batch_size = max(1, min(LARGEST_BATCH, min(limit, BATCH_BYTES) // max(1, sum(sizes.values()))))
    groups: list[list[str]] = [[]]
    room = limit
    for name in observed:
        if groups[-1] and sizes[name] > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= sizes[name]
    return [tuple(group) for group in groups], batch_size


def _bytes_per_sample(model: ir.Model, observed: Sequence[str]) -> dict[str, int]:
    """Size of each tensor for one sample of a usual size."""
    found = {value.name: facts.sizes for value, facts in infer(model, complete_dims(input_specs(model))).items()}
    return {name: _UNKNOWN_BYTES if (dims := found.get(name)) is None else 4 * math.prod(dims) for name in observed}
