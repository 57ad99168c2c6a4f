"""``toolkit inspect``: what an ONNX file holds, what it costs to run, and who would run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from toolkit.cli.layout import columns, paragraph, rows
from toolkit.cli.options import dim_option, emit, format_option
from toolkit.errors import ToolkitError, from_vendor

if TYPE_CHECKING:
    from toolkit.graph.cost import ModelCost
    from toolkit.graph.facts import GraphFacts

_METADATA_SHOWN = 60


class ProviderView(msgspec.Struct, frozen=True):
    """What one provider makes of the model.

    ``status`` is "ready" with the nodes it takes and leaves, "refused" (it is here, but does not run this file) or
    "unavailable", with the reason and what to do.
    """

    provider: str
    status: str
    version: str = ""
    taken: dict[str, int] = {}
    left: dict[str, str] = {}
    reason: str = ""
    remedy: str = ""


class Inspection(msgspec.Struct, frozen=True):
    """Everything ``toolkit inspect`` prints; ``providers`` is empty where placement was not asked for."""

    model: str
    facts: GraphFacts
    cost: ModelCost
    providers: tuple[ProviderView, ...]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@dim_option
@click.option(
    "--placement/--no-placement", default=True, help="Ask each provider which nodes it takes, which opens the model."
)
@format_option
def inspect(model: Path, dims: dict[str, int], placement: bool, output_format: str) -> None:
    """Show what MODEL (an ONNX file) holds and what it costs to run.

    Arithmetic and memory traffic are per inference, at the sizes that --dim
    gives to named dims and at small defaults for the rest.
    """
    from toolkit.graph.cost import cost
    from toolkit.graph.facts import facts
    from toolkit.graph.files import load_model

    found, costs = facts(model), cost(load_model(model), dims)
    views = provider_views(model, found) if placement else ()
    result = Inspection(str(model), found, costs, views)
    emit(result, output_format, lambda: table(result))


def provider_views(model: Path, found: GraphFacts) -> tuple[ProviderView, ...]:
    """What each provider that runs ONNX files makes of ``model``."""
    from toolkit.providers import registry

    return tuple(_view(name, model, found) for name in sorted(registry.automatic()))


def _view(name: str, model: Path, found: GraphFacts) -> ProviderView:
    from toolkit.graph.facts import require_runnable
    from toolkit.providers import registry
    from toolkit.providers.base import Unavailable
    from toolkit.targets import Target

    provider, target = registry.provider(name), Target(name=name, provider=name)
    answer = provider.probe()
    if isinstance(answer, Unavailable):
        return ProviderView(name, "unavailable", reason=answer.reason, remedy=answer.remedy)
    if found.precision not in provider.precisions:
        return ProviderView(name, "refused", answer.version, reason=f"it runs no {found.precision} files")
    try:
        require_runnable(found, model)
        placed = provider.place(model, target)
    except ToolkitError as exc:
        return ProviderView(name, "refused", answer.version, reason=str(exc))
    except Exception as exc:  # noqa: BLE001  # vendors raise what they like; it becomes the reason shown
        return ProviderView(name, "refused", answer.version, reason=str(from_vendor(exc, model, doing="placing nodes")))
    return ProviderView(name, "ready", answer.version, placed.taken, placed.refused)


def table(result: Inspection) -> str:
    """The inspection for an 80-column terminal."""
    lines = [*rows(_heading(result)), "", *paragraph(_cost_line(result.cost), ""), "", *_operators(result)]
    if result.cost.uncounted:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in result.cost.uncounted.items())
        lines += ["", *paragraph(f"In no sum above: {reasons}", "")]
    if result.providers:
        lines += [
            "",
            *rows([(view.provider, _provider_line(view, result.facts.node_count)) for view in result.providers]),
        ]
    return "\n".join(lines)


def _heading(result: Inspection) -> list[tuple[str, str]]:
    facts = result.facts
    others = [f"{name} {version}" for name, version in facts.domains.items() if name != "ai.onnx"]
    pairs = [
        ("model", result.model),
        ("opset", ", ".join([f"{facts.opset} (IR version {facts.ir_version})", *others])),
        ("precision", facts.precision + (", quantized" if facts.quantized else "")),
        ("size", f"{quantity(facts.size_bytes)}B, {facts.parameters:,} parameters, {facts.node_count} nodes"),
    ]
    pairs += [("input", str(spec)) for spec in facts.inputs]
    pairs += [("output", str(spec)) for spec in facts.outputs]
    pairs.append(("dynamic", ", ".join(facts.dynamic_dims) or "no dim: every input has a fixed size"))
    pairs += [("metadata", f"{key} = {_cut(value)}") for key, value in facts.metadata.items()]
    return pairs


def _cut(text: str) -> str:
    return text if len(text) <= _METADATA_SHOWN else f"{text[: _METADATA_SHOWN - 1]}…"


def _cost_line(cost: ModelCost) -> str:
    at = f"At {' '.join(f'{name}={size}' for name, size in cost.dims.items())}: " if cost.dims else "Per inference: "
    moved = f"{quantity(cost.weight_bytes)}B of weights read, {quantity(cost.activation_bytes)}B of activations moved"
    return f"{at}{quantity(cost.flops)}FLOP, {moved}"


def _operators(result: Inspection) -> list[str]:
    """The histogram of the file, costliest operators first, with what each costs where it costs something."""
    costs = {item.operator: item for item in result.cost.operators}
    order = sorted(result.facts.operators, key=lambda name: -costs[name].flops if name in costs else 0)
    table = [("OPERATOR", "NODES", "FLOP", "WEIGHTS", "ACTIVATIONS")]
    for name in order:
        item, nodes = costs.get(name), str(result.facts.operators[name])
        sums = (item.flops, item.weight_bytes, item.activation_bytes) if item else (0, 0, 0)
        table.append((name, nodes, *(quantity(value) if value else "" for value in sums)))  # type: ignore[arg-type]  # five cells
    return columns(table)


def _provider_line(view: ProviderView, nodes: int) -> str:
    if view.status == "unavailable":
        return f"not available: {view.reason} → {view.remedy}"
    if view.status == "refused":
        return f"does not run this file: {view.reason}"
    left = "; ".join(f"{name}: {why}" for name, why in sorted(view.left.items()))
    count = sum(view.taken.values())
    if left:
        return f"takes {count} nodes, not {left}"
    return f"takes all {count} nodes" if count == nodes else f"takes all, as {count} nodes of its own"


def quantity(value: float) -> str:
    """Three digits and a prefix: ``5.99 G``; what follows is the unit."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:g} "
