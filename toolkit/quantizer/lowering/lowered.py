"""What every lowering hands back."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

from toolkit.quantizer.plan import LeftInFloat


class Rounding(msgspec.Struct, frozen=True):
    """How well 8 bits hold one tensor, by its histogram, and the nodes that read it so."""

    tensor: str
    snr_db: float
    nodes: tuple[str, ...]


class Lowered(msgspec.Struct, frozen=True):
    """A model in its new precision, and what became of its nodes.

    Attributes:
        method: what was done, in a word or two: "static int8", "float16".
        precision: of the file, as targets allow it: "int8", "int4", "float16", "bfloat16".
        quantized: nodes that were narrowed, by operator.
        roundings: of activations, the least precise first, where the method rounds any.
        nodes: their names in the order of the graph, where the method can leave each of them in float.
    """

    model: ir.Model
    method: str
    precision: str
    quantized: dict[str, int]
    left: tuple[LeftInFloat, ...] = ()
    notes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    roundings: tuple[Rounding, ...] = ()
