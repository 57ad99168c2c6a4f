"""While a module is captured, its own code is told that nobody is exporting it.

Code that asks (``torch.compiler.is_exporting()``) usually does so to skip what exporters cannot follow, and then the
graph is not what runs outside. Asked by torch and transformers themselves, the answer stays true: they skip only work
that changes nothing, and cannot be traced otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from toolkit.exporter.observe import library_folders

_QUESTIONS: tuple[tuple[ModuleType, str], ...] = (
    (torch.compiler, "is_exporting"),
    (torch.compiler, "is_compiling"),
    (torch.compiler, "is_dynamo_compiling"),
    (torch.jit, "is_tracing"),
    (torch.onnx, "is_in_onnx_export"),
)


@contextmanager
def unnoticed() -> Iterator[None]:
    """Inside the block a person's code gets False from every function that tells whether an export is going on."""
    kept = [(place, name, getattr(place, name)) for place, name in _QUESTIONS if hasattr(place, name)]
    try:
        for place, name, function in kept:
            setattr(place, name, _discreet(function))
        yield
    finally:
        for place, name, function in kept:
            setattr(place, name, function)


def _discreet(function: Callable[..., bool]) -> Callable[..., bool]:
    def answer(*args: Any) -> bool:
        asked_by = sys._getframe(1).f_code.co_filename
        return function(*args) if asked_by.startswith(library_folders()) else False

    return answer
