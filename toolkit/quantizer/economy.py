"""Kinds of nodes whose quantization costs more time than it gains go back to float: measured, not guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from toolkit.quantizer.job import Job
from toolkit.quantizer.lowering.static import OPSET
from toolkit.quantizer.trying import Bench, Candidate

REASON = "narrowing it was measured to cost more time than it gains"


def kinds(model: ir.Model, nodes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``nodes`` by kind: engines have one kernel for all of a kind, so that they gain or lose together."""
    wanted, found = set(nodes), dict[str, list[str]]()
    for node in model.graph:
        if node.name in wanted:
            found.setdefault(_kind(node), []).append(node.name or "")
    return {kind: tuple(names) for kind, names in found.items()}


def _kind(node: ir.Node) -> str:
    if node.op_type == "Conv":
        if node.attributes.get_int("group", 1) > 1:
            return "grouped Conv"
        data = node.inputs[0]
        return "first Conv" if data is not None and data.is_graph_input() else "Conv"
    if node.op_type == "MatMul":
        weight = node.inputs[1]
        return "MatMul" if weight is not None and weight.const_value is not None else "MatMul of activations"
    return str(node.op_type)


def without_each_kind(job: Job, bench: Bench, whole: Candidate) -> dict[str, Candidate]:
    """``whole`` with all nodes of one kind in float, by kind. Their accuracy is not asked for: they tell times."""
    remake = whole.recipe.without
    found = kinds(job.prepared(OPSET).model, whole.nodes)
    if remake is None or len(found) < 2:
        return {}
    tried = {kind: bench.attempt(remake(in_float(nodes)), bench.as_made) for kind, nodes in found.items()}
    return {kind: item for kind, item in tried.items() if isinstance(item, Candidate) and not item.trial.refusal}


def without_kinds(job: Job, bench: Bench, whole: Candidate, names: Sequence[str]) -> Candidate | None:
    """``whole`` with all nodes of some kinds in float; None where that does not keep the budget."""
    found = kinds(job.prepared(OPSET).model, whole.nodes)
    assert whole.recipe.without is not None, "asked for what without_each_kind made"
    nodes = [node for kind in names for node in found[kind]]
    item = bench.attempt(whole.recipe.without(in_float(nodes)), bench.judged_for_choice)
    return item if isinstance(item, Candidate) and not item.trial.refusal else None


def in_float(nodes: Sequence[str]) -> Mapping[str, str]:
    return dict.fromkeys(nodes, REASON)
