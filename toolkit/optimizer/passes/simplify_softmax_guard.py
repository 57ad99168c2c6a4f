"""What torch writes behind the Softmax of an attention, where no row can be fully masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import onnx_ir as ir

from toolkit.graph.constants import constant_array
from toolkit.graph.edit import remove, replace
from toolkit.graph.shapes import infer
from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass
from toolkit.optimizer.passes.bounds import LARGEST, Bounds, Interval
from toolkit.optimizer.passes.kept_entries import KeptEntries

_T = ir.DataType
# A quarter of the distance between the largest number and its neighbour: adding less to it rounds back to it.
# Source: IEEE 754, rounding to nearest; half the distance is the first that overflows.
_ABSORBED = {_T.FLOAT16: 8.0, _T.BFLOAT16: 2.0**118, _T.FLOAT: 2.0**102, _T.DOUBLE: 2.0**969}
_MAKE_SCORES = ("MatMul", "Gemm", "Mul", "Div", "Einsum")
_FIRST_LAST_AXIS = 13  # the opset whose Softmax works along the last axis unless told otherwise


@final
class SimplifySoftmaxGuard(Pass):
    """Where(IsNaN(softmax), 0, softmax) becomes softmax where the softmax is proven not to be NaN.

    Softmax gives NaN for a row that is all -inf, or that holds NaN or inf. ``scaled_dot_product_attention`` with a
    boolean mask writes the guard for the first, and no engine fuses an attention that has it. Proven means:

    - The scores have a finite bound, from weights and from what a LayerNormalization, Tanh or the like can return
      (:mod:`bounds`); so the products of queries and keys cannot overflow to inf, nor to inf - inf. Scores computed
      from a float input alone have no bound, and keep the guard. The premise is that what reaches a normalization is
      finite: of an activation that overflowed earlier the guard would have hidden the NaN from other positions.
    - There is no mask; or the mask is finite and adding it does not overflow, which makes no row all -inf, however
      much of it is masked; or it holds -inf but keeps a finite entry in each row (:mod:`kept_entries`).

    A mask of torch.finfo(dtype).min is finite: float32 absorbs scores below 2**102 without reaching -inf, and a fully
    masked row is an average with or without the guard. In float16 a score of -16 is enough to overflow, so the guard
    mostly stays there. A mask with -inf that an input decides keeps it: a finite number in place of -inf would make
    averages of rows that are zero now. The proof holds for the file's own precision; an engine that is told to run
    float32 files in float16 may turn the finite minimum into -inf, and is compared there with ``--target``.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        guards = [node for graph in every_graph(model) for node in graph if _guarded(node) is not None]
        bounds = Bounds(infer(model, annotations=False)) if guards else None
        for node in guards:
            guarded = _guarded(node)
            assert bounds is not None and guarded is not None
            self._simplify(node, *guarded, bounds, model.opset_imports.get("", 1), changes)
        return model

    @staticmethod
    def _simplify(
        where: ir.Node, softmax: ir.Value, test: ir.Value, bounds: Bounds, opset: int, changes: Changes
    ) -> None:
        producer, output = softmax.producer(), where.outputs[0]
        assert producer is not None
        if (reason := _reason_to_stay(producer, bounds, opset)) is not None:
            changes.skip(reason)
            return
        label = f"behind {softmax.name}"
        if not replace(output, softmax):
            changes.skip("it names an output that the softmax cannot stand for")
            return
        remove(where)
        _remove_unread(test)
        changes.made(label)


def _remove_unread(value: ir.Value) -> None:
    node = value.producer()
    if node is None or any(output.uses() or output.is_graph_output() for output in node.outputs):
        return
    sources = [source for source in node.inputs if source is not None]
    remove(node)
    for source in sources:
        if (producer := source.producer()) is not None and producer.op_type == "IsNaN":
            _remove_unread(source)


def _guarded(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The softmax that a Where guards, and the condition of the Where; None where it is no such Where."""
    if node.op_type != "Where" or node.domain:
        return None
    test, chosen, kept = node.inputs
    condition = test.producer() if test is not None else None
    if condition is not None and condition.op_type == "Not" and condition.inputs[0] is not None:
        condition, chosen, kept = condition.inputs[0].producer(), kept, chosen
    if condition is None or test is None or kept is None or condition.op_type != "IsNaN" or condition.domain:
        return None
    softmax = kept.producer()
    if softmax is None or softmax.op_type != "Softmax" or softmax.domain or condition.inputs[0] is not kept:
        return None
    instead = constant_array(chosen)
    # A larger array in place of the zero could give the result another shape.
    return (kept, test) if instead is not None and instead.size == 1 and instead.ndim <= 1 else None


def _reason_to_stay(softmax: ir.Node, bounds: Bounds, opset: int) -> str | None:
    scores = softmax.inputs[0]
    dtype = bounds.dtype(scores)
    if scores is None or dtype not in LARGEST:
        return "the type of the scores is not known"
    if bounds.of(scores) is not None:
        return None
    last = softmax.attributes.get_int("axis", -1 if opset >= _FIRST_LAST_AXIS else 1)
    shape = bounds.shape(scores)
    along_rows = last == -1 or (shape is not None and last == len(shape) - 1)
    added = scores.producer()
    if added is None or added.op_type != "Add" or added.domain:
        return "the scores have no finite bound"
    return _reason_against(bounds, dtype, added.inputs, along_rows)


def _reason_against(
    bounds: Bounds, dtype: ir.DataType, terms: Sequence[ir.Value | None], along_rows: bool
) -> str | None:
    """Why the softmax of the sum of two ``terms``, scores and mask in either order, may be NaN; or None."""
    known = [(found, other) for term, other in zip(terms, terms[::-1], strict=True) if (found := bounds.of(term))]
    if len(known) == 2:
        return None if _fits(known[0][0], known[1][0], dtype) else "adding the mask may overflow to -inf"
    if not known:
        return "the scores have no finite bound"
    scores, mask = known[0]
    if mask is not None and (producer := mask.producer()) is not None and producer.op_type in _MAKE_SCORES:
        return "the scores have no finite bound"
    # What the mask keeps may be as small as finite numbers get.
    if along_rows and scores.size <= _ABSORBED[dtype] and KeptEntries(bounds).in_every_row(mask):
        return None
    return "the mask may leave nothing in a row"


def _fits(one: Interval, other: Interval, dtype: ir.DataType) -> bool:
    """Whether a sum stays finite."""
    largest, less = LARGEST[dtype], min(one.size, other.size)
    return less <= _ABSORBED[dtype] or one.size + other.size <= largest
