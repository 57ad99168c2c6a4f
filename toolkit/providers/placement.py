"""Where quantization goes on an engine, as data: ``cpu.toml``, ``openvino.toml``, … beside this file.

No single placement of Q/DQ pairs is fast on every engine (DESIGN, section 6), so each provider has a table of its own.
A table holds one or more *variants*, best guess first; one may say ``like = "NAME"`` and how it differs. Choosing
between them is a measurement's job, not this file's.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from toolkit.errors import InvalidTarget
from toolkit.files import existing_file

_FOLDER = Path(__file__).parent


class Activations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How activations are stored: uint8 with a zero point, or int8 with the zero point at 0 (``symmetric``)."""

    type: Literal["uint8", "int8"]
    symmetric: bool = False


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How weights are stored: always symmetric int8, since engines fold a zero point of weights badly or not at all.

    ``full_range_needs`` lists CPU features; where none is there, products of two 8-bit numbers saturate in 16 bits and
    weights keep to 7 bits.
    """

    per_channel: bool = True
    full_range_needs: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with nodes of some operators. The first rule that fits a node is used.

    Attributes:
        operators: types of the default operator set.
        activations: operands that get a Q/DQ pair; none of them may be a constant.
        weight: operand that has to be a constant and is stored as int8; None where there is none.
        weight_axis: its output channel; -1 means the last. Gemm with transB counts from the transposed weight.
        bias: operand stored as int32 in the product of both scales, where the engine's kernel wants that.
        output: whether the result gets a Q/DQ pair too, which every reader of it reads.
        only_read: of results, only those that something quantized reads get a pair.
        only_between: use the rule only where every activation has a Q/DQ pair already, from the node that makes it or
            for another node that reads it.
        one_scale: the node only puts its operands together (Concat): all of them count as ``activations``, and they
            and the result get one scale, so that the engine copies bytes. Used where every operand is a quantized
            result and something quantized reads what comes out.
        source: where this is known from.
    """

    operators: tuple[str, ...]
    activations: tuple[int, ...] = (0,)
    weight: int | None = None
    weight_axis: int = 0
    bias: int | None = None
    output: bool = False
    only_read: bool = False
    only_between: bool = False
    one_scale: bool = False
    source: str


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One placement.

    Attributes:
        keep_whole: chains such as ["Conv", "Relu"] that the engine runs as one kernel: no Q/DQ inside.
        transparent: operators that only move elements; what leaves them keeps the scale of what entered.
        fused: whether biased products and attentions become ONNX Runtime's own operators (lowering/fused.py).
    """

    name: str
    source: str
    activations: Activations
    weights: Weights = Weights()
    keep_whole: tuple[tuple[str, ...], ...] = ()
    transparent: tuple[str, ...] = ()
    fused: bool = False
    rules: tuple[Rule, ...]

    @property
    def arithmetic(self) -> Variant:
        """What decides how numbers are rounded: equal for variants that differ in form alone."""
        return msgspec.structs.replace(self, name="", source="", fused=False)

    @property
    def operators(self) -> frozenset[str]:
        return frozenset(operator for rule in self.rules for operator in rule.operators)


class WeightOnly(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How weights alone are narrowed: ``form`` "MatMulNBits" (ONNX Runtime's operator) or "qdq" (standard)."""

    form: Literal["MatMulNBits", "qdq"]
    source: str
    block_size: int = 32
    bits: tuple[int, ...] = (8, 4)


class Dynamic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Operators that the engine quantizes as it runs, faster than float."""

    operators: tuple[str, ...]
    source: str


class PlacementRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One provider's table. ``halves`` are the 16-bit float types that it has kernels for."""

    schema_version: Literal[1]
    provider: str
    variants: tuple[Variant, ...]
    halves: tuple[Literal["float16", "bfloat16"], ...] = ()
    dynamic: Dynamic | None = None
    weight_only: WeightOnly | None = None

    def variant(self, name: str) -> Variant:
        """The variant called ``name``.

        Raises:
            InvalidTarget: there is none.
        """
        for item in self.variants:
            if item.name == name:
                return item
        names = ", ".join(item.name for item in self.variants)
        raise InvalidTarget("no such placement", where=self.provider, got=name, expected=f"one of: {names}")


@cache
def placement_rules(file: str) -> PlacementRules:
    """Read one table, given by the name in ``Provider.placement_rules`` or by a path.

    Raises:
        FileProblem: it is missing.
        InvalidTarget: not TOML, an unknown key, or a value of the wrong type.
    """
    path = existing_file(_FOLDER / file, "placement file")
    try:
        return msgspec.convert(_spelled_out(tomllib.loads(path.read_text(encoding="utf-8"))), PlacementRules)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidTarget("not a TOML file", where=path, got=exc) from exc
    except msgspec.ValidationError as exc:
        raise InvalidTarget("a placement rule does not fit", where=path, got=exc) from exc


def _spelled_out(table: dict[str, Any]) -> dict[str, Any]:
    """``table`` with variants that say ``like = "NAME"`` filled in from the earlier one of that name."""
    variants = table.get("variants")
    if not isinstance(variants, list) or not all(isinstance(item, dict) for item in variants):
        return table  # its type is what is wrong, and the conversion says so
    known: dict[object, dict[str, Any]] = {}
    for item in variants:
        own = {name: value for name, value in item.items() if name != "like"}
        # An unknown name stays, and is refused as an unknown key.
        known[item.get("name")] = {**known[item["like"]], **own} if item.get("like") in known else item
    return {**table, "variants": list(known.values())}


def shipped_rules() -> dict[str, PlacementRules]:
    """Every table that stands beside this file, by provider."""
    tables = (placement_rules(path.name) for path in sorted(_FOLDER.glob("*.toml")))
    return {table.provider: table for table in tables}
