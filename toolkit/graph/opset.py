"""Moving a model to a newer opset, one version at a time, subgraphs and functions included.

The libraries' converters do not reach: onnx's knows neither functions nor captured values, onnxscript's starts at 18.
What is needed is small: an operator is only touched where its definition broke (:mod:`toolkit.graph.opset_adapters`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from toolkit.errors import InvalidModel, UsageError
from toolkit.graph.edit import Editor
from toolkit.graph.opset_adapters import ADAPTERS
from toolkit.graph.shapes import infer
from toolkit.graph.validity import check_model
from toolkit.graph.walk import clone_with_values

NEWEST_OPSET = onnx.defs.onnx_opset_version()
# Files of IR version 3 have to list their weights as inputs; nothing that is written here does.
_OLDEST_IR = 4


def upgrade(model: ir.Model, opset: int) -> tuple[ir.Model, tuple[str, ...]]:
    """Rewrite ``model`` for ``opset``; the model that was passed in is not changed.

    Returns:
        The new model, checked by onnx.checker, and notes for a person: what was rewritten, what was assumed. A model
        that has that opset already comes back as it is, with no note.

    Raises:
        UsageError: the opset is older than the model's, or one that onnx does not know.
        InvalidModel: a node has no equivalent in the newer opset.
    """
    before = model.opset_imports.get("", opset)
    _check_versions(before, opset)
    if before == opset and all(function.opset_imports.get("", opset) == opset for function in model.functions.values()):
        return model, ()
    shapes = infer(model)
    copy, twins = clone_with_values(model)
    edit = Editor(copy, {twins[value]: found.shape for value, found in shapes.items() if value in twins})
    rewritten: dict[ir.Node, str] = {}
    warnings: list[str] = []
    for graphs, imports in _scopes(copy):
        for version in range(imports.get("", opset) + 1, opset + 1):
            for node in [node for graph in graphs for node in graph if not node.domain]:
                _adapt(node, version, edit, rewritten, warnings)
        if "" in imports:
            imports[""] = opset
    copy.ir_version = max(copy.ir_version, oldest_ir(opset))
    try:
        check_model(copy)
    except InvalidModel as exc:
        raise InvalidModel(f"upgrading to opset {opset} does not give a valid model", got=exc.got or exc.what) from exc
    return copy, (_summary(before, opset, rewritten), *warnings)


def oldest_ir(opset: int) -> int:
    """The oldest IR version that a model of ``opset`` may have."""
    return max(_OLDEST_IR, int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])))


def _check_versions(before: int, opset: int) -> None:
    if opset > NEWEST_OPSET:
        raise UsageError("onnx knows no such opset", where="--opset", got=opset, expected=f"at most {NEWEST_OPSET}")
    if opset < before:
        raise UsageError("the model's opset is newer", where="--opset", got=opset, expected=f"{before} or more")


def _scopes(model: ir.Model) -> Iterator[tuple[list[ir.Graph], dict[str, int]]]:
    """The main graph and each function, with their subgraphs and the operator sets that they import."""
    yield list(model.graphs()), model.graph.opset_imports
    for function in model.functions.values():
        yield [function.graph, *function.subgraphs()], function.opset_imports


def _adapt(node: ir.Node, version: int, edit: Editor, rewritten: dict[ir.Node, str], warnings: list[str]) -> None:
    name, before = node.op_type, _signature(node)
    for adapter in (ADAPTERS.get(("*", version)), ADAPTERS.get((name, version))):
        if adapter is not None and (warning := adapter(node, edit)):
            warnings.append(warning)
    if _signature(node) != before:
        rewritten.setdefault(node, name)


def _signature(node: ir.Node) -> tuple[object, ...]:
    return node.op_type, node.inputs, len(node.outputs), tuple(node.attributes.items())


def _summary(before: int, opset: int, rewritten: dict[ir.Node, str]) -> str:
    nodes = ", ".join(f"{count} {name}" for name, count in sorted(Counter(rewritten.values()).items()))
    return f"opset {before} to {opset}: {f'rewrote {nodes}' if nodes else 'no node had to change'}"
