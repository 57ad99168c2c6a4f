"""``MODEL.pt2``: an ExportedProgram that ``torch.export.save`` wrote."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import nn
from torch.utils._pytree import tree_unflatten

from toolkit.errors import UsageError
from toolkit.exporter.sources.source import Source
from toolkit.files import existing_file
from toolkit.providers.torch_ import load_program, program_specs
from toolkit.tensors import Dim, TensorSpec


def open_program(text: str, request: Any) -> Source:
    """Load the program.

    Raises:
        FileProblem: there is no such file.
        UsageError: the person did not say that they trust it.
    """
    path = existing_file(text, "exported program")
    if not request.trust:
        raise UsageError(
            "a .pt2 file is code, and loading one runs it", where=text, next_step="add --trust if you trust its origin"
        )
    loaded = load_program(path)
    inputs = _named_dims(program_specs(loaded)[0])
    return Source(name=path.name, module=Program(loaded), inputs=inputs)


@final
class Program(nn.Module):  # type: ignore[misc]  # torch is untyped to the checker
    """Calls a program with its inputs in order, however they were nested when it was captured."""

    def __init__(self, loaded: Any) -> None:
        super().__init__()
        self.program = loaded.module()
        self._structure = loaded.call_spec.in_spec
        for part in self.modules():
            part.training = False

    def train(self, mode: bool = True) -> Program:
        """Programs have no modes, and refuse to be asked."""
        return self

    def forward(self, *tensors: torch.Tensor) -> Any:
        args, kwargs = tree_unflatten(list(tensors), self._structure)
        return self.program(*args, **kwargs)


def _named_dims(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Symbols as names: ``batch`` for the first axis of the first input, then ``dim_1``, ``dim_2`` and so on."""
    names: dict[str, str] = {}
    named = []
    for spec in specs:
        dims: list[Dim] = []
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str) and dim not in names:
                names[dim] = "batch" if axis == 0 and "batch" not in names.values() else f"dim_{len(names)}"
            dims.append(names[dim] if isinstance(dim, str) else dim)
        named.append(TensorSpec(spec.name, spec.dtype, tuple(dims), spec.values))
    return tuple(named)
