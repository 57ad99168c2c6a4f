"""Embeddings: large constant tables read by Gather, in int8 with one step per row.

The rows that are asked for are dequantized, not the table: behind a DequantizeLinear of the whole table, ONNX Runtime
expands all of it in every run. One DequantizeLinear per tensor, in steps of 1, makes floats of the rows; a Mul with
their own steps follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import Editor, remove, replace
from toolkit.quantizer.lowering.fitness import unfit
from toolkit.quantizer.plan import LeftInFloat, constant
from toolkit.tensors import Array

SMALLEST_TABLE = 1 << 16
"""Elements. The three nodes more cost a few microseconds, which smaller tables are not worth."""
_LARGEST = 127


class Table(NamedTuple):
    """A table as stored: ``(rows, columns) int8``, and its steps, ``(rows, 1) float32``."""

    rows: ir.Value
    steps: ir.Value


class Narrowed(NamedTuple):
    """Tables by the value they stood for, how many nodes read them, and what was left."""

    tables: dict[ir.Value, Table]
    readers: int
    left: tuple[LeftInFloat, ...]


def narrow_tables(edit: Editor, but: Collection[ir.Value] = ()) -> Narrowed:
    """Store the large tables of the model, ``but`` those, in int8 and let their Gathers read them."""
    tables: dict[ir.Value, Table] = {}
    left, count = list[LeftInFloat](), 0
    for node in [node for node in edit.model.graph if reads_table(node) and node.inputs[0] not in but]:
        table = node.inputs[0]
        assert table is not None, "checked by reads_table"
        if table not in tables and (reason := _refusal(table)):
            left.append(LeftInFloat(node.name or "", "Gather", reason))
            continue
        if table not in tables:
            tables[table] = _stored(edit, table)
        _read_narrow(edit, node, tables[table])
        count += 1
    return Narrowed(tables, count, tuple(left))


def reads_table(node: ir.Node) -> bool:
    """Whether ``node`` gathers rows of a large constant float32 matrix."""
    if node.op_type != "Gather" or node.domain or node.attributes.get_int("axis", 0) != 0:
        return False
    tensor = constant(node.inputs[0])
    return (
        tensor is not None
        and tensor.dtype is ir.DataType.FLOAT
        and len(tensor.shape) == 2
        and tensor.size >= SMALLEST_TABLE
    )


def _refusal(table: ir.Value) -> str | None:
    """Why the table has to stay float; what else reads it would keep both forms in the file."""
    if table.is_graph_output() or not all(_narrow_reader(use.node, use.idx) for use in table.uses()):
        return "its table is read as float32 elsewhere"
    return unfit(constant(table))


def _narrow_reader(node: ir.Node, index: int) -> bool:
    return (reads_table(node) and index == 0) or (node.op_type == "MatMul" and not node.domain and index == 1)


def in_rows(table: Array) -> tuple[Array, Array]:
    """Symmetric integers ``(rows, columns) int8`` and their steps ``(rows, 1) float32``; rows of zeros get 1."""
    steps = np.abs(table).max(axis=1, keepdims=True) / np.float32(_LARGEST)
    steps = np.where(steps > np.finfo(np.float32).tiny, steps, np.float32(1)).astype(np.float32)
    return np.clip(np.round(table / steps), -_LARGEST, _LARGEST).astype(np.int8), steps


def _stored(edit: Editor, table: ir.Value) -> Table:
    tensor = constant(table)
    assert tensor is not None, "checked by reads_table"
    rows, steps = in_rows(tensor.numpy())
    anchor = edit.model.graph[0]
    return Table(
        edit.constant(rows, f"{table.name}_int8", anchor), edit.constant(steps, f"{table.name}_row_scale", anchor)
    )


def _read_narrow(edit: Editor, node: ir.Node, table: Table) -> None:
    """Put the nodes that read the narrow table in the place of ``node``."""
    old, indices = node.outputs[0], node.inputs[1]
    one = edit.constant(np.array(1, np.float32), f"{old.name}_one", node)
    rows = edit.before(node, "Gather", [table.rows, indices], {"axis": 0}, name=f"{old.name}_int8")
    floats = edit.before(node, "DequantizeLinear", [rows, one], name=f"{old.name}_dequantized")
    steps = edit.before(node, "Gather", [table.steps, indices], {"axis": 0}, name=f"{old.name}_scale")
    result = edit.before(node, "Mul", [floats, steps], name=f"{old.name}_scaled")
    result.type, result.shape = old.type, old.shape
    replace(old, result)
    remove(node)


def tied_to(weight: ir.Value, tables: Iterable[ir.Value]) -> ir.Value | None:
    """The table whose transpose ``weight`` holds, as a language model's head does; preparing folds the Transpose."""
    tensor = constant(weight)
    if tensor is None:
        return None
    for table in tables:
        other = constant(table)
        if other is None or tuple(other.shape) != tuple(reversed(list(tensor.shape))):
            continue
        if np.array_equal(other.numpy().T, tensor.numpy()):
            return table
    return None
