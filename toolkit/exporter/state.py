"""Everything a module could remember between two calls, as leaves with a path: weights, buffers, plain attributes at
any depth, attributes of its classes, and the globals and closures that their methods use."""

from __future__ import annotations

import array
import io
import itertools
import logging
import random
import sys
import types
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.exporter.owncode import closure, globals_used, is_installed, is_library, own_class, wrapped

# Hooks and bookkeeping of nn.Module itself; weights, buffers and the training flag are kept.
_BOOKKEEPING = set(vars(nn.Module())) - {"_parameters", "_buffers", "training"}
_CONTAINERS = (list, tuple, set, frozenset, deque)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, array.array, np.generic)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_COUNTERS = (itertools.count, itertools.repeat)
# Loggers and open files remember much, and none of it comes back.
_OPAQUE = (
    types.ModuleType, types.BuiltinFunctionType, types.MappingProxyType, torch.dtype, torch.device, torch.Size,
    logging.Logger, logging.Handler, io.IOBase,
)  # fmt: skip
_DEPTH = 8


def walk(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """All leaves: tensors, arrays, generators, iterators and plain values, in an order that does not depend on when
    they were set.

    Objects that several places share are entered once; lists and dicts are given wherever they are, since who shares
    one with whom is no state.
    """
    return _Walk().of(module)


def iterators(module: nn.Module) -> list[str]:
    """Paths of iterators that move on when somebody asks them, and that nobody can wind back or compare."""
    return [path for path, value in walk(module) if _is_iterator(value)]


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
            digests[id(value)] = digests.get(id(value)) or _digest(value)
        digest = digests[id(value)] if isinstance(value, Tensor) else _digest(value)
        while path in found:  # names of two files may be the same
            path += "'"
        found[path] = digest
    return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Paths whose value changed, appeared or went away."""
    return [path for path in dict.fromkeys((*before, *after)) if before.get(path) != after.get(path)]


def _join(name: str, attribute: str) -> str:
    return f"{name}.{attribute}" if name else attribute


def _clean(path: str) -> str:
    return (
        path.replace("._parameters.", ".")
        .replace("._buffers.", ".")
        .removeprefix("_parameters.")
        .removeprefix("_buffers.")
    )


def _is_iterator(value: Any) -> bool:
    kind = type(value)
    return kind.__module__ in ("builtins", "itertools") and isinstance(value, Iterator) and kind not in _COUNTERS


@final
class _Walk:
    """One walk: attributes first, then the code that they lead to, as long as there is some that was not seen."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._modules: list[tuple[str, nn.Module]] = []
        self._functions: list[tuple[types.FunctionType, bool, Any]] = []
        self._classes: list[type] = []

    def of(self, module: nn.Module) -> Iterator[tuple[str, Any]]:
        self._seen |= {id(part) for part in module.modules()}
        self._modules.append(("", module))
        while self._modules or self._classes or self._functions:
            if self._modules:
                yield from self._module_leaves(*self._modules.pop())
            elif self._classes:
                yield from self._class_leaves(self._classes.pop())
            else:
                yield from self._function_leaves(*self._functions.pop())

    def _module_leaves(self, prefix: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
        for name, part in module.named_modules(prefix=prefix):
            for attribute, value in sorted(vars(part).items()):
                if attribute not in _BOOKKEEPING:
                    yield from self._leaves(_join(name, attribute), value)
            for base in type(part).__mro__:
                if not is_library(base.__module__):
                    self._meet_class(base)

    def _class_leaves(self, cls: type) -> Iterator[tuple[str, Any]]:
        home = getattr(sys.modules.get(cls.__module__), "__dict__", None)
        for name, value in vars(cls).items():
            if not name.startswith("__") or isinstance(value, types.FunctionType) or wrapped(value):
                yield from self._leaves(f"{cls.__name__}.{name}", value, home)

    def _function_leaves(self, function: types.FunctionType, whole: bool, home: Any) -> Iterator[tuple[str, Any]]:
        """What a function keeps and what it reaches; of a library's wrapper only what it wraps."""
        for name, value in closure(function):
            yield from self._leaves(f"{name} around {function.__qualname__}", value, home)
        if whole:
            yield from self._leaves(f"function {function.__name__}", vars(function), home)
            defaults = (function.__defaults__, function.__kwdefaults__)
            yield from self._leaves(f"defaults of {function.__name__}", defaults, home)
            for name, value in globals_used(function):
                yield from self._leaves(f"global {name}", value, home)

    def _meet_class(self, cls: type) -> None:
        if id(cls) not in self._seen:
            self._seen.add(id(cls))
            self._classes.append(cls)

    def _meet_function(self, function: types.FunctionType, home: Any) -> None:
        """Queue a function. Installed packages keep caches, so of them only what is in the file that led here.

        Args:
            function: what was met.
            home: globals of the file that led here; None where an attribute did.
        """
        if id(function) not in self._seen:
            self._seen.add(id(function))
            space = function.__globals__
            foreign = space is not home and is_installed(function.__code__.co_filename)
            whole = not foreign and not is_library(space.get("__name__"))
            self._functions.append((function, whole, space if whole else home))

    def _leaves(self, path: str, value: Any, home: Any = None, depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
        if isinstance(value, (*_PLAIN, *_GENERATORS, *_COUNTERS, Tensor, np.ndarray)) or _is_iterator(value):
            yield path, value
        elif isinstance(value, types.FunctionType):
            self._meet_function(value, home)
        elif isinstance(value, type):
            for base in value.__mro__:
                if own_class(base):
                    self._meet_class(base)
        elif isinstance(value, nn.Module):
            if id(value) not in self._seen:  # held where torch does not look for it
                self._seen |= {id(part) for part in value.modules()}
                self._modules.append((path, value))
        elif not isinstance(value, _OPAQUE) and depth:
            for name, item in self._parts(path, value):
                yield from self._leaves(name, item, home, depth - 1)

    def _parts(self, path: str, value: Any) -> list[tuple[str, Any]]:
        """What is inside a container, a wrapped function or an object."""
        if isinstance(value, Mapping):
            items = [(_clean(f"{path}.{key}"), item) for key, item in list(value.items())]
            return [*items, (f"{path}#", len(items))]
        if isinstance(value, _CONTAINERS):
            items = [(f"{path}[{index}]", item) for index, item in enumerate(list(value))]
            return [*items, (f"{path}#", len(items))]
        if inner := wrapped(value):
            return [(path, item) for item in inner if item is not None]
        if id(value) in self._seen or not (hasattr(value, "__dict__") or own_class(type(value))):
            return []
        self._seen.add(id(value))
        return [(path, type(value)), *((f"{path}.{key}", item) for key, item in sorted(_attributes(value).items()))]


def _attributes(value: Any) -> dict[str, Any]:
    """Of an object, those in slots included where its class is a person's own."""
    found = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ()) if own_class(cls) else ()
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _digest(value: Any) -> str:
    if isinstance(value, Tensor):
        return _tensor_digest(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype}{value.shape}{zlib.crc32(np.ascontiguousarray(value).view(np.uint8).reshape(-1).data)}"
    if isinstance(value, torch.Generator):
        return _tensor_digest(value.get_state())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return str(hash(value.getstate()))
    return repr(value)


def _tensor_digest(tensor: Tensor) -> str:
    plain = tensor.detach()
    if plain.is_meta:
        return f"{tensor.dtype}{tuple(tensor.shape)}"
    if plain.device.type != "cpu" or plain.layout != torch.strided:
        plain = plain.to_dense().cpu() if plain.layout != torch.strided else plain.cpu()
    data = plain.contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype}{tuple(tensor.shape)}{zlib.crc32(data.data)}"
