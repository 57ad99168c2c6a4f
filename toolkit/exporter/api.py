"""``toolkit.export``: a PyTorch module in, an ONNX file that computes the same out, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from toolkit.errors import UsageError
from toolkit.exporter.adapter import argument_names
from toolkit.exporter.inputs import EXAMPLE, input_specs
from toolkit.exporter.passthrough import copy_graph
from toolkit.exporter.quiet import quiet
from toolkit.exporter.report import ExportReport
from toolkit.exporter.run import Export
from toolkit.exporter.sources import Source, open_source
from toolkit.exporter.strategies import dynamo, recurrent, torchscript
from toolkit.exporter.strategies.base import Strategy
from toolkit.files import writable_output
from toolkit.tensors import TensorSpec

# In this order; the first whose graph passes is kept.
STRATEGIES = (
    Strategy("dynamo", dynamo.build),
    Strategy("dynamo with own recurrent layers", recurrent.build),
    Strategy("torchscript", torchscript.build),
)

_OLDEST_OPSET = 18


def export(
    source: str | os.PathLike[str] | nn.Module,
    inputs: Any = None,
    output: str | os.PathLike[str] = "model.onnx",
    *,
    weights: str | os.PathLike[str] | None = None,
    weights_key: str | None = None,
    task: str | None = None,
    opset: int | None = None,
    trust: bool = False,
    output_names: Sequence[str] = (),
    strategies: Sequence[Strategy] = STRATEGIES,
    debug: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write ``source`` as an ONNX file that was shown to compute the same.

    Args:
        source: a module, or the text of a source: ``zoo:NAME``, ``package.module:factory``, ``file.py:factory``, a
            ``.pt2`` file, a local Hugging Face folder.
        inputs: TensorSpecs, texts as ``--input`` takes them, or example tensors (their first axis becomes the dynamic
            dim ``batch``); None where the source knows.
        output: the file to write.
        weights: a checkpoint (``.safetensors``, ``.pth``, ``.th``, ``.ckpt``), loaded without unpickling objects.
        weights_key: where in the checkpoint the weights are.
        task: what the model is for, recorded with it; picks the head of a Hugging Face model.
        opset: of the default operator set.
        trust: allow sources that are code by nature (``.pt2``).
        output_names: instead of the keys, fields or places that the module's output has.
        strategies: how to make the graph, in order.
        debug: let exporters print what they like.
        progress: told what is being done.

    Raises:
        UsageError: the source, its inputs or its weights are not as they should be.
        ParityError: the module is no function of its inputs, or no strategy gave a graph that computes the same.
    """
    _check_opset(opset)
    path = writable_output(output)
    with quiet(not debug):
        opened = _open(source, weights=weights, weights_key=weights_key, task=task, trust=trust)
        if opened.onnx is not None:
            return copy_graph(opened, path, opset)
        specs = _specs(opened, inputs)
    run = Export(opened, specs, path, opset, tuple(output_names) or opened.outputs, debug, progress)
    return run.report(strategies)


def _check_opset(opset: int | None) -> None:
    from toolkit.graph.opset import NEWEST_OPSET

    if opset is not None and not _OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise UsageError(
            "torch writes no such opset", where="--opset", got=opset, expected=f"{_OLDEST_OPSET} to {NEWEST_OPSET}"
        )


def _open(source: str | os.PathLike[str] | nn.Module, **options: Any) -> Source:
    if isinstance(source, nn.Module):
        if options["weights"] is not None:
            raise UsageError("a module has its weights already", where="weights", next_step="load them first")
        elsewhere = next((str(item.device) for item in source.parameters() if not item.is_cpu), None)
        if elsewhere is not None:
            raise UsageError("exports are made on the CPU", where="module", got=elsewhere, next_step="module.cpu()")
        return Source(name=type(source).__name__, module=source, task=options["task"] or "")
    return open_source(os.fspath(source), **options)


def _specs(source: Source, inputs: Any) -> tuple[TensorSpec, ...]:
    if inputs is None or (isinstance(inputs, list | tuple) and not inputs):
        if source.inputs is None:
            raise UsageError("the source does not say what it takes", where=source.name, expected=EXAMPLE)
        return source.inputs
    return input_specs(inputs, argument_names(source.module))
