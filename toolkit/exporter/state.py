"""Everything a module could remember between two calls, as leaves with a path: weights, buffers, plain attributes at
any depth, attributes of its classes, and the globals and closures that their methods use."""

from __future__ import annotations

import itertools
import random
import types
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Hooks and bookkeeping of nn.Module itself; weights, buffers and the training flag are kept.
_BOOKKEEPING = set(vars(nn.Module())) - {"_parameters", "_buffers", "training"}
_CONTAINERS = (list, tuple, set, frozenset, deque)
_OPAQUE = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MappingProxyType,
    property, classmethod, staticmethod, torch.dtype, torch.device, torch.Size,
)  # fmt: skip
# Code of these keeps no state that a forward pass reads; looking into their globals would take long and find nothing.
_LIBRARIES = ("torch", "transformers", "numpy", "toolkit")
_DEPTH = 8


def walk(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """All leaves: tensors, arrays, generators and plain values, in an order that does not depend on when they were set.

    Objects that several places share are entered once; lists and dicts are given wherever they are, since who shares
    one with whom is no state.
    """
    seen: set[int] = set()
    for name, part in module.named_modules():
        for attribute, value in sorted(vars(part).items()):
            if attribute not in _BOOKKEEPING:
                yield from _leaves(_join(name, attribute), value, seen, _DEPTH)
    for cls in dict.fromkeys(type(part) for part in module.modules()):
        if not cls.__module__.startswith(_LIBRARIES):
            yield from _class_leaves(cls, seen)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors among the leaves, each once."""
    found = {id(value): (path, value) for path, value in walk(module) if isinstance(value, Tensor)}
    return dict(found.values())


def fingerprint(module: nn.Module) -> dict[str, str]:
    """Path and digest of every leaf; equal fingerprints mean that nothing has changed."""
    digests: dict[int, str] = {}
    found: dict[str, str] = {}
    for path, value in walk(module):
        if isinstance(value, Tensor):
            if id(value) not in digests:
                digests[id(value)] = _digest(value)
            found[path] = digests[id(value)]
        else:
            found[path] = _digest(value)
    return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Paths whose value changed, appeared or went away."""
    return [path for path in dict.fromkeys((*before, *after)) if before.get(path) != after.get(path)]


def _join(name: str, attribute: str) -> str:
    return f"{name}.{attribute}" if name else attribute


def _leaves(path: str, value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield path, value
        return
    if isinstance(value, _OPAQUE) or depth == 0:
        return
    if isinstance(value, nn.Module):
        return  # named_modules comes by, or it is no part of this module's forward
    if isinstance(value, Tensor | np.ndarray | torch.Generator | np.random.Generator | random.Random | itertools.count):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in list(value.items()):
            yield from _leaves(_clean(f"{path}.{key}"), item, seen, depth - 1)
        yield f"{path}#", len(value)
    elif isinstance(value, _CONTAINERS):
        for index, item in enumerate(list(value)):
            yield from _leaves(f"{path}[{index}]", item, seen, depth - 1)
        yield f"{path}#", len(value)
    elif hasattr(value, "__dict__") and id(value) not in seen:
        seen.add(id(value))
        for key, item in sorted(vars(value).items()):
            yield from _leaves(f"{path}.{key}", item, seen, depth - 1)


def _clean(path: str) -> str:
    return (
        path.replace("._parameters.", ".")
        .replace("._buffers.", ".")
        .removeprefix("_parameters.")
        .removeprefix("_buffers.")
    )


def _class_leaves(cls: type, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Data on a class, and the globals and closures of its methods and of the functions of its file they call."""
    functions = [value for value in vars(cls).values() if isinstance(value, types.FunctionType)]
    for name, value in vars(cls).items():
        if not name.startswith("__"):
            yield from _leaves(f"{cls.__name__}.{name}", value, seen, _DEPTH)
    visited: set[int] = set()
    while functions:
        function = functions.pop()
        if id(function) in visited:
            continue
        visited.add(id(function))
        kept = (vars(function), function.__defaults__, function.__kwdefaults__)
        yield from _leaves(f"function {function.__name__}", kept, seen, _DEPTH)
        for cell in function.__closure__ or ():
            yield from _leaves(f"closure of {function.__name__}", _content(cell), seen, _DEPTH)
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
                functions.append(value)
            else:
                yield from _leaves(f"global {name}", value, seen, _DEPTH)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _digest(value: Any) -> str:
    if isinstance(value, Tensor):
        return _tensor_digest(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{zlib.crc32(np.ascontiguousarray(value).view(np.uint8).reshape(-1).data)}"
    if isinstance(value, torch.Generator):
        return _tensor_digest(value.get_state())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return str(hash(value.getstate()))
    return repr(value)


def _tensor_digest(tensor: Tensor) -> str:
    plain = tensor.detach()
    if plain.device.type != "cpu" or plain.layout != torch.strided:
        plain = plain.to_dense().cpu() if plain.layout != torch.strided else plain.cpu()
    data = plain.contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype}{tuple(tensor.shape)}{zlib.crc32(data.data)}"
