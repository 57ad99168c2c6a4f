"""Choices between two tensors that are made before the model runs."""

from __future__ import annotations

from typing import final

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import Editor, remove, replace
from toolkit.graph.equal_sizes import EqualSizes
from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass
from toolkit.optimizer.passes.uniform import Uniform

# Operators whose result is as large as one of their inputs asks for, and which input that is.
_MADE_TO_SIZE = {"Expand": 1, "ConstantOfShape": 0}


@final
class InlineConstantWhere(Pass):
    """Where with a condition that is true throughout, or false, becomes the branch that it takes.

    The condition may be repeated to a size that is known at run time only, as transformers writes a mask that hides
    nothing (:mod:`uniform`). Where condition and other branch may make the result larger than the branch taken, that is
    expanded: to the result's fixed sizes, or to those that the condition itself is made to.
    """

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        uniform = Uniform()
        found = [
            (node, truth)
            for graph in every_graph(model)
            for node in graph
            if node.op_type == "Where" and not node.domain and (truth := uniform.of(node.inputs[0])) is not None
        ]
        if found:
            editor, sizes = Editor(model), EqualSizes(model)
            for node, truth in found:
                self._inline(node, bool(truth), editor, sizes, changes)
        return model

    @staticmethod
    def _inline(node: ir.Node, truth: bool, editor: Editor, sizes: EqualSizes, changes: Changes) -> None:
        condition, (taken, other) = node.inputs[0], node.inputs[1:3] if truth else node.inputs[2:0:-1]
        output = node.outputs[0]
        label = f"{output.name} is {taken.name if taken else '?'}"
        if taken is None or condition is None:
            return
        result: ir.Value | None = taken
        if not (sizes.fits(condition, taken) and sizes.fits(other, taken)):
            result = _expanded(node, taken, editor, sizes)
        if result is None:
            changes.skip("the result may have another shape than the branch taken")
        elif replace(output, result):
            remove(node)
            changes.made(label)
        else:
            changes.skip("it names an output that its branch cannot stand for")


def _expanded(node: ir.Node, taken: ir.Value, editor: Editor, sizes: EqualSizes) -> ir.Value | None:
    """``taken`` in the shape of what the Where ``node`` returns; None where nothing holds that shape."""
    output = node.outputs[0]
    shape = _fixed_shape(node, editor, sizes) or _shape_of_condition(node, sizes)
    if shape is None:
        return None
    result = editor.before(node, "Expand", [taken, shape], name=f"{output.name}_expanded")
    result.shape, result.type = output.shape, output.type
    sizes.stands_for(result, output)
    return result


def _fixed_shape(node: ir.Node, editor: Editor, sizes: EqualSizes) -> ir.Value | None:
    output = node.outputs[0]
    known = sizes.of(output)
    fixed = [size for size in known or () if isinstance(size, int)]
    if known is None or len(fixed) < len(known):
        return None
    return editor.constant(np.array(fixed, np.int64), f"{output.name}_shape", node)


def _shape_of_condition(node: ir.Node, sizes: EqualSizes) -> ir.Value | None:
    """What the condition was made to the size of, if that is the whole shape of the result."""
    condition, output = node.inputs[0], node.outputs[0]
    made, result = condition.producer() if condition is not None else None, sizes.of(output)
    if made is None or made.op_type not in _MADE_TO_SIZE or made.domain or result is None:
        return None
    shape = made.inputs[_MADE_TO_SIZE[made.op_type]]
    seed = () if made.op_type == "ConstantOfShape" else sizes.of(made.inputs[0])
    # What is expanded may be larger than asked for, unless it is one element.
    single = seed is not None and all(size == 1 for size in seed)
    whole = sizes.fits(node.inputs[1], condition) and sizes.fits(node.inputs[2], condition)
    return shape if single and whole and sizes.of(shape) == (len(result),) else None
