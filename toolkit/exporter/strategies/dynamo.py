"""torch.export, then torch's own translation to ONNX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.utils._pytree import tree_map

from toolkit.exporter.disguise import unnoticed
from toolkit.exporter.observe import is_selection
from toolkit.exporter.strategies.base import Candidate, Job, StrategyFailed, reason_of
from toolkit.exporter.strategies.guards import breaking_sizes, readable

# torch.export wants an upper bound; nothing fits in memory beyond this one.
_LARGEST = 1 << 20
# nn.RNN, LSTM and GRU: torch.export unrolls their time steps, which freezes the length and writes hundreds of nodes.
_RECURRENT = (nn.RNNBase,)
# What sizes of networks that halve their input are multiples of, where torch cannot tell itself.
_STEPS = (32, 8)
# ``seq <= 512``, ``(height % 32) == 0``
_BOUND = re.compile(r"^(\w+ <= \d+|\(?\w+ % \d+\)? == 0)$")
_ITEM = ("aten.item.default", "aten._local_scalar_dense.default")
# What torch.export adds around an item without using its value for the answer.
_CHECKS = ("sym_constrain_range", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size")


def build(job: Job) -> Candidate:
    """Export with torch's own translations.

    Raises:
        StrategyFailed: torch.export or the translation cannot, or the module has recurrent layers.
    """
    layers = [type(part).__name__ for part in job.adapter.modules() if isinstance(part, _RECURRENT)]
    if layers:
        raise StrategyFailed(f"torch unrolls nn.{layers[0]} step by step and freezes its length")
    return capture_and_translate(job, {})


def capture_and_translate(job: Job, table: Mapping[Callable[..., Any], Callable[..., Any]]) -> Candidate:
    """Capture the module with torch.export and translate the program, with ``table`` for our own operators."""
    program, guards = capture(job)
    check_program(program, job)
    sizes = breaking_sizes(guards, job.specs, job.traced, job.runs)
    try:
        result = torch.onnx.export(
            program, (), None, dynamo=True, opset_version=job.opset, verbose=False, optimize=True,
            custom_translation_table=dict(table),
        )  # fmt: skip
    except Exception as exc:
        raise StrategyFailed(_translation_reason(exc)) from exc
    assumed = _listed(guards, job)
    return Candidate(result.model, sizes, (f"the module's own code assumes {assumed}",) if assumed else ())


def capture(job: Job) -> tuple[Any, tuple[str, ...]]:
    """The ExportedProgram and the guards on sizes that it stands under; none in the usual case.

    First every dim is asked to be free over its whole range. Where the module's code looks at sizes that is refused,
    and torch.export is asked what it would have to assume; where it cannot say, it is asked for multiples, and the
    graph is judged at other sizes that the module takes.

    Raises:
        StrategyFailed: the code takes branches by values, or fixes a dim.
    """
    first: Exception | None = None
    for dims, assumed in _choices(job):
        try:
            program = _export(job, dims)
        except StrategyFailed:
            raise
        except Exception as exc:  # noqa: BLE001  # torch raises all kinds; the first is reported where nothing works
            first = first or exc
            if type(exc).__name__ == "GuardOnDataDependentSymNode":
                break
            continue
        frozen = frozen_dims(program, job)
        if frozen:
            name = frozen[0]
            raise StrategyFailed(f"the module's code fixes dim '{name}' to {job.traced[name]}") from first
        if assumed is None:
            return program, ()
        guards = getattr(program, "_guards_code", None)
        if guards is not None:
            return program, (*guards, *assumed)
    raise StrategyFailed(reason_of(first) if first else "torch does not say what it assumed") from first


def _choices(job: Job) -> Iterator[tuple[dict[str, Any], tuple[str, ...] | None]]:
    """Ways to describe the dims, and what is assumed by them; None where nothing is."""
    free = {name: Dim(name, min=1, max=_LARGEST) for name in job.traced}
    yield free, None
    yield dict.fromkeys(job.traced, Dim.AUTO), ()
    for step in _STEPS:
        stepped = {
            name: step * Dim(f"_{name}", min=1, max=_LARGEST // step)
            for name, size in job.traced.items()
            if size % step == 0
        }
        if stepped:
            yield {**free, **stepped}, tuple(f"{_place(job, name)} % {step} == 0" for name in stepped)


def _place(job: Job, name: str) -> str:
    """A dim as torch.export's guards write it."""
    for index, spec in enumerate(job.specs):
        if name in (spec.shape or ()):
            return f"L['tensors'][{index}].size()[{(spec.shape or ()).index(name)}]"
    raise AssertionError(f"no input has the dim {name}")


def _export(job: Job, dims: Mapping[str, Any]) -> Any:
    shapes = tuple(
        {axis: dims[dim] for axis, dim in enumerate(spec.shape or ()) if isinstance(dim, str)} for spec in job.specs
    )
    with torch.no_grad(), unnoticed():
        return torch.export.export(job.adapter, job.inputs(), dynamic_shapes={"tensors": shapes}, strict=False)


def frozen_dims(program: Any, job: Job) -> list[str]:
    """Named dims that the program has as plain numbers."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    frozen = []
    for spec, name in zip(job.specs, program.graph_signature.user_inputs, strict=True):
        for dim, size in zip(spec.shape or (), values[name].shape, strict=True):
            if isinstance(dim, str) and str(size).isdigit():  # a number, or a symbol that became one
                frozen.append(dim)
    return frozen


def check_program(program: Any, job: Job) -> None:
    """Refuse programs that changed state, drew random numbers, or lost a number that the module's code had read."""
    if program.graph_signature.buffers_to_mutate:
        raise StrategyFailed(
            f"the program writes into {next(iter(program.graph_signature.buffers_to_mutate.values()))}"
        )
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    items = sum(str(node.target) in _ITEM and any(not _is_check(user) for user in node.users) for node in calls)
    if items < len(job.purity.items):
        read = job.purity.items[0]
        raise StrategyFailed(f"a number that the module reads from a tensor at {read.where} is not in the program")
    selections = sum(is_selection(node.target, tree_map(_value, node.args)) for node in calls)
    if selections < job.purity.selections:
        raise StrategyFailed("the module picks elements by value, which is not in the program")


def _value(item: Any) -> Any:
    return item.meta.get("val") if isinstance(item, torch.fx.Node) else item


def _is_check(node: Any) -> bool:
    return any(name in str(node.target) for name in _CHECKS)


def _translation_reason(exc: BaseException) -> str:
    text = "\n".join(str(item) for item in (exc, exc.__cause__) if item is not None)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    return f"torch has no translation of {missing[1]}" if missing else reason_of(exc.__cause__ or exc)


def _listed(guards: tuple[str, ...], job: Job) -> str:
    """The conditions that a person can use; the graph is judged beyond the others all the same."""
    texts = (readable(guard, job.specs) for guard in guards)
    return ", ".join(text for text in texts if _BOUND.match(text))
