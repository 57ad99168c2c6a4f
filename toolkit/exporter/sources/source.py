"""What is known about a model before it is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from toolkit.preprocess import Preprocessing
from toolkit.tensors import TensorSpec


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model and what its origin says about it.

    Attributes:
        name: what the person wrote, without the folders of this machine.
        module: the model; an empty module where ``onnx`` is set.
        onnx: an ONNX file that is a model already.
        inputs: None where the origin does not say.
        outputs: names; empty means those that the module's output has.
        dims: sizes to trace at, where only few are possible.
        files: tokenizer and the like, to be copied beside the output, by name.
        state: pairs of input and output that carry state from call to call.
        notes: what was done on the way that the person should know.
    """

    name: str
    module: nn.Module = field(default_factory=nn.Module)
    onnx: Path | None = None
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[str, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    task: str = ""
    license: str = ""
    notes: tuple[str, ...] = ()
