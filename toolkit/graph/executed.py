"""The graph that an engine made of a model, written as ONNX: what its nodes compute of the model they came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import msgspec
import onnx_ir as ir

from toolkit.graph.edit import subgraphs
from toolkit.graph.files import load_model
from toolkit.graph.regions import Claim
from toolkit.graph.walk import every_node

# ONNX Runtime's blocked convolutions are named after the tensor that they compute in another layout.
_BLOCKED = "_nchwc"
# Layout changes: they hand on what another node computed, under its name.
_LAYOUT = {"ReorderInput", "ReorderOutput"}
_SEPARATORS = "/_ "


class Executed(msgspec.Struct, frozen=True):
    """Nodes of an engine's graph by name.

    Attributes:
        claims: what each computes of the original model.
        inside: names of the nodes that run inside each If, Loop or Scan.
    """

    claims: Mapping[str, Claim]
    inside: Mapping[str, tuple[str, ...]]


def executed(path: str | os.PathLike[str], model: ir.Model) -> Executed:
    """Read the engine's graph; ``model`` is the original, whose names are distinct.

    Raises:
        InvalidModel: not an ONNX file.
    """
    graph = load_model(path)
    nodes = list(every_node(graph))
    claims = _claims(nodes, _Names(model))
    return Executed(claims, dict(_inside(nodes)))


def _inside(nodes: list[ir.Node]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in nodes:
        inner = [str(member.name) for body in subgraphs(node) for member in body]
        if inner:
            yield str(node.name), tuple(inner)


class _Names:
    """What the original model calls its nodes and what they compute."""

    def __init__(self, model: ir.Model) -> None:
        self.outputs = {
            str(node.name): tuple(value.name for value in node.outputs if value.name) for node in every_node(model)
        }
        self.producer = {name: node for node, names in self.outputs.items() for name in names}

    def meant(self, name: str) -> tuple[str, ...]:
        """Tensors that a made-up name such as ``node/GeluFusion/`` is derived from, its end cut off bit by bit."""
        while name:
            if name in self.outputs:
                return self.outputs[name]
            if name in self.producer:
                return (name,)
            name = name[: max(name.rfind(separator) for separator in _SEPARATORS) + 1].rstrip(_SEPARATORS)
        return ()


def _claims(nodes: list[ir.Node], names: _Names) -> dict[str, Claim]:
    """Certain knowledge first: a node under its own name whose results were renamed, then tensors that kept theirs."""
    found: dict[str, Claim] = {}
    for node in nodes:
        kept = [value.name for value in node.outputs if value.name in names.producer]
        own = names.outputs.get(str(node.name), ())
        blocked = str(node.name).removesuffix(_BLOCKED)
        if own and not kept:
            found[str(node.name)] = Claim(own, renamed=True)
        elif blocked != node.name and blocked in names.producer:
            found[str(node.name)] = Claim((blocked,), renamed=True)
    taken = {names.producer[name] for claim in found.values() for name in claim.tensors}
    for node in (node for node in nodes if node.op_type not in _LAYOUT):
        kept = [str(value.name) for value in node.outputs if value.name in names.producer]
        free = tuple(name for name in kept if names.producer[name] not in taken)
        if str(node.name) not in found and kept:
            found[str(node.name)] = Claim(free)
        elif str(node.name) not in found:
            found[str(node.name)] = Claim(names.meant(str(node.name)), renamed=True)
    return found
