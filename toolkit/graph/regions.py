"""Which nodes of a model each node of an engine stands for: engines fuse, rename, drop and add nodes as they like.

What an engine's node hands on tells most: between the tensors that it computes and those that others compute lie the
nodes that were fused into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import onnx_ir as ir

from toolkit.graph.edit import subgraphs
from toolkit.graph.flops import ELEMENTWISE
from toolkit.graph.walk import every_node

# Engines append these to the kernel whose result they change.
_APPENDED = ELEMENTWISE | {"BatchNormalization", "QuantizeLinear"}


class Claim(NamedTuple):
    """One node of an engine: tensors of the model that it computes.

    ``renamed``: what it hands on has no name in the model, so it may have computed more than its tensors say.
    ``weight``: of several that claim a tensor the heaviest has it; the others prepare something for it.
    """

    tensors: tuple[str, ...]
    renamed: bool = False
    weight: float = 0.0


def regions(model: ir.Model, claims: Sequence[Claim]) -> list[tuple[ir.Node, ...]]:
    """Nodes of ``model`` behind each of ``claims``, which stand in the order they ran in; no node is in two of them.

    The names of values in ``model`` are distinct (:func:`toolkit.graph.naming.with_distinct_names`). What depends on
    constants alone was computed ahead and is in none.
    """
    nodes = list(every_node(model))
    owners = _Owners(nodes, claims)
    owners.append_elementwise()
    owners.reach_back()
    owners.enter_bodies(model.graph)
    owners.reach_forward()
    found: list[list[ir.Node]] = [[] for _ in claims]
    for node in nodes:
        if (owner := owners.of.get(node)) is not None:
            found[owner].append(node)
    return [tuple(members) for members in found]


@final
class _Owners:
    """Index of the claim that each node belongs to."""

    def __init__(self, nodes: Sequence[ir.Node], claims: Sequence[Claim]) -> None:
        self._claims = claims
        self._fixed = _computed_ahead(nodes)
        self._nodes = [node for node in nodes if node not in self._fixed]
        self.of: dict[ir.Node, int] = {}
        producers = {value.name: node for node in self._nodes for value in node.outputs if value.name}
        for index, claim in sorted(enumerate(claims), key=lambda pair: -pair[1].weight):
            for name in claim.tensors:
                if (node := producers.get(name)) is not None:
                    self.of.setdefault(node, index)

    def append_elementwise(self) -> None:
        """What only changes the result of a node whose result has another name now was computed together with it.

        Had it been computed elsewhere, that result would be needed under its own name. Of two that are added, the later
        one did it.
        """
        for node in self._nodes:
            if node not in self.of and node.op_type in _APPENDED:
                before = [self.of[source] for source in _sources(node) if source in self.of]
                renamed = [index for index in before if self._claims[index].renamed]
                if renamed:
                    self.of[node] = max(renamed)

    def reach_back(self) -> None:
        """Everything else that nobody claims belongs to the first that needs it."""
        for node in reversed(self._nodes):
            if node not in self.of:
                readers = [self.of[user] for value in node.outputs for user, _ in value.uses() if user in self.of]
                if readers:
                    self.of[node] = min(readers)

    def enter_bodies(self, graph: ir.Graph) -> None:
        """Bodies that the engine does not show belong to the If, Loop or Scan that runs them.

        Of an engine that shows the branch that ran, the other one belongs to nobody.
        """
        for node in graph:
            bodies = subgraphs(node)
            members = [member for body in bodies for member in body]
            if node in self.of and not any(member in self.of for member in members):
                self.of.update((member, self.of[node]) for member in members if member not in self._fixed)
            for body in bodies:
                self.enter_bodies(body)

    def reach_forward(self) -> None:
        """What only leads to an output belongs to what it reads from."""
        for node in self._nodes:
            if node not in self.of:
                before = [self.of[source] for source in _sources(node) if source in self.of]
                if before:
                    self.of[node] = max(before)


def _sources(node: ir.Node) -> list[ir.Node]:
    """Nodes of the same graph that ``node`` reads from."""
    producers = (value.producer() for value in node.inputs if value is not None)
    return [producer for producer in producers if producer is not None and producer.graph is node.graph]


def _computed_ahead(nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """Nodes that depend on constants alone."""
    fixed: set[ir.Node] = set()
    for node in nodes:
        if subgraphs(node):
            continue
        if node.op_type == "Constant" or (node.inputs and all(_is_fixed(value, fixed) for value in node.inputs)):
            fixed.add(node)
    return fixed


def _is_fixed(value: ir.Value | None, fixed: set[ir.Node]) -> bool:
    if value is None:
        return True
    producer = value.producer()
    if producer is None:
        return value.is_initializer() and not value.is_graph_input()
    return producer in fixed
