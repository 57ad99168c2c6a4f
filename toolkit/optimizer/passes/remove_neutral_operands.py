"""Sums with zero and products with one."""

from __future__ import annotations

from typing import final

import onnx_ir as ir

from toolkit.graph.constants import constant_tensor
from toolkit.graph.edit import remove, replace
from toolkit.graph.equal_sizes import EqualSizes
from toolkit.graph.walk import every_graph
from toolkit.optimizer.base import Changes, Pass
from toolkit.optimizer.passes.uniform import Uniform

_FIRST_BROADCASTING = 7  # the opset from which on both operands broadcast, without attributes

# Operator: the number that changes nothing, and which operands it may be.
_NEUTRAL = {"Add": (0, (0, 1)), "Sub": (0, (1,)), "Mul": (1, (0, 1)), "Div": (1, (1,))}


@final
class RemoveNeutralOperands(Pass):
    """x + 0, x - 0, x * 1 and x / 1 become x, where broadcasting cannot make more of x.

    Zeros and ones may be of any shape that is proven to fit into that of x (:mod:`toolkit.graph.equal_sizes`), and come
    by way of Expand and the like (:mod:`uniform`): the additive mask of an attention that hides nothing is such a sum.
    The operators take one type for both operands and the result, so the type stays too. Where x is empty, so is the
    result.

    A vector among the weights stays: it is the bias or scale of a network that is not trained, and engines look for one
    when they fuse (MatMul, Add and Gelu; a normalization in small steps). Without it the file would be timed as
    something that the trained network is not.

    Integers, inf and NaN pass through all four as they are, and so does every float, but that -0.0 + 0.0 is 0.0 where
    the rewritten model has -0.0. The two are equal, and only the sign of an infinity that comes of dividing by them
    tells them apart. ONNX Runtime takes the same liberty with every file that it opens.
    Source: onnxruntime/core/optimizer/noop_elimination.h.
    """

    def requires(self, model: ir.Model) -> str | None:
        old = model.opset_imports.get("", 0) < _FIRST_BROADCASTING
        return "operators of this opset broadcast in their own way" if old else None

    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        uniform = Uniform()
        found: list[tuple[ir.Node, list[int]]] = []
        for node in (node for graph in every_graph(model) for node in graph if not node.domain):
            neutral = _neutral_operands(node, uniform)
            if any(_is_vector(node.inputs[index]) for index in neutral):
                changes.skip("a bias or scale of an untrained network")
            elif neutral:
                found.append((node, neutral))
        if found:
            sizes = EqualSizes(model)
            for node, neutral in found:
                self._remove(node, neutral, sizes, changes)
        return model

    @staticmethod
    def _remove(node: ir.Node, neutral: list[int], sizes: EqualSizes, changes: Changes) -> None:
        output = node.outputs[0]
        kept = [node.inputs[1 - index] for index in neutral if sizes.fits(node.inputs[index], node.inputs[1 - index])]
        if not kept or kept[0] is None:
            changes.skip("the result may have another shape than the operand")
            return
        label = f"{node.op_type} {output.name} is {kept[0].name}"
        if not replace(output, kept[0]):
            changes.skip("it names an output that its operand cannot stand for")
            return
        remove(node)
        changes.made(label)


def _is_vector(operand: ir.Value | None) -> bool:
    tensor = constant_tensor(operand)
    return tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) == 1 and tensor.size > 1


def _neutral_operands(node: ir.Node, uniform: Uniform) -> list[int]:
    """Which operands of ``node`` change nothing but perhaps the shape."""
    number, places = _NEUTRAL.get(node.op_type, (0, ()))
    return [index for index in places if uniform.of(node.inputs[index]) == number]
