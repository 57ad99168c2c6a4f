"""Static int8: from a calibration record and a placement to a model with Q/DQ pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from toolkit.data import Dataset
from toolkit.graph.edit import Editor
from toolkit.graph.equal_sizes import EqualSizes
from toolkit.graph.shapes import infer
from toolkit.providers.placement import Variant
from toolkit.quantizer.calibration.histogram import Distribution
from toolkit.quantizer.calibration.observers import Range, observed_range, rounding_snr_db
from toolkit.quantizer.calibration.record import CalibrationRecord
from toolkit.quantizer.choices import Observer
from toolkit.quantizer.lowering.correction import Shifts, correct_biases, mean_shifts
from toolkit.quantizer.lowering.fused import biased_products, fuse
from toolkit.quantizer.lowering.lowered import Lowered, Rounding
from toolkit.quantizer.lowering.qdq import write_qdq
from toolkit.quantizer.lowering.sharing import shared_ranges
from toolkit.quantizer.lowering.tables import narrow_tables
from toolkit.quantizer.plan import LeftInFloat, Plan, make_plan

OPSET = 13
"""Per-channel QuantizeLinear and DequantizeLinear appeared in it."""
_WEIGHT_ELEMENTS = 1024  # smaller constants are scales, biases and masks
_LOST = 0.5  # of the values of a tail
_OWN = ("QuantizeLinear", "DequantizeLinear")


class _Planned(NamedTuple):
    """A copy of the model with what shall become of it, and what calibration saw of its tensors."""

    model: ir.Model
    plan: Plan
    ranges: dict[str, Range]
    seen: dict[str, Distribution]


def lower_static(
    model: ir.Model,
    variant: Variant,
    record: CalibrationRecord,
    observer: Observer,
    *,
    keep_float: Mapping[str, str] | None = None,
    shifts: Shifts | None = None,
) -> Lowered:
    """A quantized copy of ``model`` (prepared, :mod:`toolkit.quantizer.preparing`).

    Args:
        observer: how ranges are chosen from what the record saw.
        keep_float: names of nodes that shall stay as they are, with the reason.
        shifts: of :func:`bias_shifts` for the same variant, record and observer; None corrects nothing.
    """
    copy, plan, ranges, seen = _planned(model, variant, record, observer, keep_float)
    corrected = correct_biases(copy, plan, shifts or {})
    products = biased_products(plan) if variant.fused else ()
    sizes = EqualSizes(copy, annotations=True) if variant.fused else None
    write_qdq(copy, plan, ranges)
    fused = fuse(copy, products, sizes) if sizes is not None and plan.nodes else ()
    quantized = Counter(placed.node.op_type for placed in plan.nodes)
    left = plan.left
    if plan.nodes:  # tables alone are what weight-only is for
        tables = narrow_tables(Editor(copy))
        quantized += Counter(Gather=tables.readers)
        left += tables.left
        common.RemoveUnusedNodesPass()(copy)
    return Lowered(
        copy, f"static int8 ({variant.name})", "int8", dict(quantized), (*left, *_without_rule(copy, variant)),
        (*((f"the biases of {corrected} nodes were corrected",) if corrected else ()), *fused),
        nodes=tuple(placed.node.name or "" for placed in plan.nodes),
        roundings=_roundings(plan, ranges, seen),
    )  # fmt: skip


def _roundings(plan: Plan, ranges: Mapping[str, Range], seen: Mapping[str, Distribution]) -> tuple[Rounding, ...]:
    readers: dict[str, dict[str, None]] = {}
    for placed in plan.nodes:
        for value in placed.activations.values():
            source = plan.scale_of.get(value, value).name or ""
            readers.setdefault(source, {})[placed.node.name or ""] = None
    found = (
        Rounding(tensor, round(rounding_snr_db(seen[tensor], bounds), 1), tuple(readers.get(tensor, ())))
        for tensor, bounds in ranges.items()
    )
    return tuple(sorted(found, key=lambda item: item.snr_db))


def bias_shifts(
    model: ir.Model, variant: Variant, record: CalibrationRecord, observer: Observer, data: Dataset
) -> Shifts:
    """What quantizing ``model`` this way moves the means of its channels by (:mod:`.correction`)."""
    planned = _planned(model, variant, record, observer, None)
    return mean_shifts(planned.model, planned.plan, planned.ranges, data)


def _planned(
    model: ir.Model, variant: Variant, record: CalibrationRecord, observer: Observer,
    keep_float: Mapping[str, str] | None,
) -> _Planned:  # fmt: skip
    copy = model.clone()
    shapes = infer(copy)
    makers = {output.name or "": node for node in copy.graph for output in node.outputs}
    in_float = dict(keep_float or {})
    seen: dict[str, Distribution | None] = {}
    unusable: dict[str, str] = {}
    plan = make_plan(copy, variant, shapes, keep_float=in_float)
    # What stays in float changes which tensors the others read, so their ranges are looked up until nothing is new.
    while new := [name for name in plan.tensors if name not in seen]:
        seen |= {name: _recorded(record, makers, variant, name) for name in new}
        unusable |= {name: reason for name in new if (reason := why_unusable(seen[name]))}
        plan = make_plan(copy, variant, shapes, unusable=unusable, keep_float=in_float)
        if wide := _wide_tails(plan, seen):
            in_float = {**wide, **in_float}
            plan = make_plan(copy, variant, shapes, unusable=unusable, keep_float=in_float)
    used = {name: found for name in plan.tensors if (found := seen[name]) is not None}
    symmetric = variant.activations.symmetric
    own = {name: observed_range(found, observer, symmetric=symmetric) for name, found in used.items()}
    ranges, apart = shared_ranges(plan, own)
    if apart:  # at least one node more than before: this ends
        return _planned(model, variant, record, observer, {**in_float, **apart})
    return _Planned(copy, plan, ranges, used)


def _recorded(
    record: CalibrationRecord, makers: Mapping[str, ir.Node], variant: Variant, name: str
) -> Distribution | None:
    """What was seen of a tensor, or of the one whose elements it holds: calibration looks at one of them."""
    wanted: str | None = name
    while wanted is not None and (found := record.distribution(wanted)) is None:
        node = makers.get(wanted)
        moves = node is not None and not node.domain and node.op_type in variant.transparent
        source = node.inputs[0] if node is not None and moves else None
        wanted = None if source is None else source.name
    return None if wanted is None else found


def _without_rule(model: ir.Model, variant: Variant) -> list[LeftInFloat]:
    """Nodes of the main graph that hold a good part of the weights and that the placement has no rule for."""
    return [
        LeftInFloat(node.name or "", node.op_type, "the placement has no rule for its operator")
        for node in model.graph
        if node.op_type not in variant.operators
        and node.op_type not in _OWN
        and any(value is not None and _is_weight(value) for value in node.inputs)
    ]


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype is ir.DataType.FLOAT and tensor.size >= _WEIGHT_ELEMENTS


def _wide_tails(plan: Plan, seen: Mapping[str, Distribution | None]) -> dict[str, str]:
    """Nodes whose results no quantized node reads and are of so different size that 8 bits lose the smaller ones.

    Detector heads end so: one Conv gives boxes in pixels and scores below one.
    """
    read = {plan.scale_of.get(value, value) for placed in plan.nodes for value in placed.activations.values()}
    found = {}
    for placed in plan.nodes:
        if placed.result is None or placed.result in read or (at := seen.get(placed.result.name or "")) is None:
            continue
        if (lost := at.share_within((at.highest - at.lowest) / 255 / 2)) > _LOST:
            found[placed.node.name or ""] = f"its results differ too much in size: 8 bits make {lost:.0%} of them zero"
    return found


def why_unusable(seen: Distribution | None) -> str | None:
    """Why a tensor cannot be given 8 bits; None when it can."""
    if seen is None:
        return "the calibration record does not have its tensor"
    if not seen.values:
        return "calibration saw no finite value of its tensor" if seen.nonfinite else "calibration saw its tensor empty"
    if seen.nonfinite:
        return f"calibration saw {seen.nonfinite} NaN or infinities in its tensor"
    largest = max(abs(seen.lowest), abs(seen.highest))
    if largest == 0.0:
        return "its tensor is all zero in calibration"
    if largest / 255 < np.finfo(np.float32).tiny:
        return "the values of its tensor are too small for a scale"
    return None
