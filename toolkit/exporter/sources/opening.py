"""From what a person writes to a source: one table of kinds."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import UsageError
from toolkit.exporter.adapter import Adapter
from toolkit.exporter.sources import factory, huggingface, onnxfile, program, zoo
from toolkit.exporter.sources.source import Source
from toolkit.exporter.sources.weights import load_weights
from toolkit.tensors import TensorSpec

KINDS = "zoo:NAME, PACKAGE.MODULE:FACTORY, FILE.py:FACTORY, MODEL.pt2, MODEL.onnx, or a folder in Hugging Face's layout"


class Request(NamedTuple):
    """What was asked for besides the text."""

    task: str
    trust: bool
    arguments: Mapping[str, Any]


class Kind(NamedTuple):
    matches: Callable[[str], bool]
    open: Callable[[str, Any], Source]


_KINDS = (
    Kind(lambda text: text.startswith("zoo:"), zoo.open_zoo),
    Kind(lambda text: text.endswith(".onnx"), onnxfile.open_onnx),
    Kind(lambda text: text.endswith(".pt2"), program.open_program),
    Kind(lambda text: Path(text).is_dir(), huggingface.open_folder),
    Kind(lambda text: ":" in text, factory.open_factory),
)


def open_source(
    text: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    weights_key: str | None = None,
    task: str | None = None,
    trust: bool = False,
) -> Source:
    """Open what ``text`` means, in evaluation mode, with its weights loaded.

    Args:
        text: see :data:`KINDS`.
        weights: a checkpoint to load into the module.
        weights_key: where in it the weights are, as ``state_dict`` or ``ema.model``.
        task: what the model is for, instead of what the source says; picks the head of a Hugging Face model.
        trust: allow ``.pt2`` files, which are code.

    Raises:
        UsageError: it is none of the kinds, or cannot be opened; one line says why.
        MissingDependency: a package that this kind of source needs is not installed.
    """
    whole, (text, arguments) = text, split_arguments(text)
    kind = next((kind for kind in _KINDS if kind.matches(text)), None)
    if kind is None:
        step = f"{text}:FACTORY names a function or class in it" if text.endswith(".py") else None
        raise UsageError("cannot tell what kind of source this is", where=text, expected=KINDS, next_step=step)
    source = kind.open(text, Request(task or "", trust, arguments))
    if arguments:
        source = dataclasses.replace(source, name=f"{source.name}?{whole.partition('?')[2]}")
    notes = source.notes
    if weights is not None:
        notes += load_weights(source.module, weights, weights_key)
    elif weights_key is not None:
        raise UsageError("there is nothing to look it up in", where="--weights-key", next_step="give --weights too")
    return dataclasses.replace(source, notes=notes, task=task or source.task)


def split_arguments(text: str) -> tuple[str, dict[str, Any]]:
    """``zoo:cnn?width=64`` as its text and the arguments for its factory; numbers and truth values are read as such.

    Only sources that have a factory take arguments; a question mark elsewhere belongs to the name.
    """
    name, _, listed = text.partition("?")
    if ":" not in name or not re.fullmatch(r"\w+=[^&=]*(&\w+=[^&=]*)*", listed):
        return text, {}
    pairs = (item.split("=") for item in listed.split("&"))
    return name, {key: _value(value) for key, value in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def open_module(text: str, **options: Any) -> tuple[Adapter, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """A source as a module of flat tensors with the specs of its inputs and outputs, for the torch provider.

    Raises:
        UsageError: as :func:`open_source`, or the source does not say what it takes.
    """
    import torch

    from toolkit.providers.torch_ import dtype_name, to_tensor
    from toolkit.tensors import example_inputs

    source = open_source(text, **options)
    if source.onnx is not None or source.inputs is None:
        raise UsageError("this source does not say what it takes", where=text, next_step="add INPUTS to its file")
    adapter = Adapter(source.module.eval(), source.inputs, source.outputs)
    named = {dim for spec in source.inputs for dim in spec.dynamic_dims}
    feeds = example_inputs(source.inputs, {dim: size for dim, size in source.dims.items() if dim in named})
    with torch.no_grad():
        answers = adapter.named(*[to_tensor(feeds[spec.name]) for spec in source.inputs])
    outputs = tuple(TensorSpec(name, dtype_name(tensor.dtype), None) for name, tensor in answers)
    return adapter, source.inputs, outputs
