"""Proof of what an ONNX Runtime session ran: which provider took each node, and the precision that was executed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.providers.base import Placement

# Operators whose name says the precision they compute in; every other node computes in the type of its inputs.
_INTEGER_KERNELS = re.compile(
    r"^(QLinear|Q(Gemm|Attention|OrderedMatMul|MoE)|MatMulInteger|ConvInteger|DynamicQuantize)"
)
# How narrow the weights are, and what the activations are rounded to, a profile does not tell.
_NARROW_KERNELS = re.compile(r"^(MatMulNBits|GatherBlockQuantized|MatMulBnb4)")
# One node that stands for a whole TensorRT engine. It was built strongly typed, so its layers compute as the file says.
_ENGINES = re.compile(r"^TRTKernel")
# Session configuration without which a session cannot tell its assignment.
RECORD_ASSIGNMENT = {"session.record_ep_graph_assignment_info": "1"}
_DTYPES = {"float": "float32", "double": "float64"}


def assignment(session: Any) -> dict[str, int]:
    """Nodes per execution provider, before fusion, from a session that recorded it."""
    counts: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)


def session_operators(session: Any) -> set[str]:
    """The operators of the model that a session holds, before fusion."""
    return {node.op_type for subgraph in session.get_provider_graph_assignment_info() for node in subgraph.get_nodes()}


def session_operator_count(session: Any) -> int:
    """Number of nodes of the model that a session holds, before fusion, those of subgraphs included."""
    return sum(assignment(session).values())


def placement(session: Any, wanted: str) -> Placement:
    """Operators that the execution provider ``wanted`` took, and where the others went."""
    taken: Counter[str] = Counter()
    refused: dict[str, str] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            if subgraph.ep_name == wanted:
                taken[node.op_type] += 1
            else:
                refused[node.op_type] = f"left to {subgraph.ep_name}"
    return Placement(dict(taken), refused)


def node_events(profile: Path) -> list[dict[str, Any]]:
    """The ``args`` of every node that a profile file says was executed."""
    import json

    events = json.loads(profile.read_text(encoding="utf-8"))
    return [event["args"] for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]


def executed_precision(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number of executed nodes per precision, from the ``args`` of a profile's node events."""
    return dict(Counter(node_precision(node) for node in nodes))


def node_precision(node: Mapping[str, Any]) -> str:
    """What one executed node computed in, from the ``args`` of its event."""
    operator = str(node["op_name"])
    if _INTEGER_KERNELS.match(operator):
        return "int8"
    if _NARROW_KERNELS.match(operator):
        return "weight-only"
    if _ENGINES.match(operator):
        return "as the file says"
    types = [_DTYPES.get(name, name) for entry in node.get("input_type_shape", []) for name in entry]
    floats = [name for name in types if name.startswith(("float", "bfloat"))]
    return str((floats or types or ["none"])[0])
