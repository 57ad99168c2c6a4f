"""What of a running Python program is a person's own code, and which functions and classes that code leads to."""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Code of these keeps no state that a forward pass reads; looking into their globals would take long and find nothing.
_LIBRARIES = frozenset({"torch", "transformers", "numpy", "toolkit", *sys.stdlib_module_names})
_INSTALLED = tuple(
    f"{folder}/"
    for folder in dict.fromkeys(
        [
            sysconfig.get_path("purelib"),
            sysconfig.get_path("platlib"),
            *site.getsitepackages(),
            site.getusersitepackages(),
        ]
    )
)
_STDLIB = tuple(
    f"{folder}/"
    for folder in dict.fromkeys(
        [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(os.__file__).parent)]
    )
)
_CACHED = type(functools.cache(lambda: None))


def is_installed(filename: str) -> bool:
    """Whether a file belongs to an installed package; a person's folder under the interpreter's prefix does not."""
    return filename.startswith(_INSTALLED)


def is_stdlib(filename: str) -> bool:
    """Whether a file is part of Python itself, whose folder holds the installed packages as well."""
    return filename.startswith("<frozen ") or (filename.startswith(_STDLIB) and "/site-packages/" not in filename)


def is_library(module_name: object) -> bool:
    """Whether a module, by its name, is Python's or of a library that is known to keep nothing."""
    return str(module_name).partition(".")[0] in _LIBRARIES


def own_module(value: object) -> bool:
    """Whether ``value`` is a module that a person wrote."""
    if not isinstance(value, types.ModuleType) or is_library(value.__name__):
        return False
    return not is_installed(getattr(value, "__file__", None) or "")


def own_class(cls: type) -> bool:
    """Whether a person wrote the class."""
    return not is_library(cls.__module__) and not is_installed(
        getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    )


def wrapped(value: Any) -> list[Any]:
    """What stands behind a method, property, partial or cached function: callables, and what they are bound to."""
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, functools.partial | functools.partialmethod):
        return [value.func, value.args, value.keywords]
    if isinstance(value, functools.cached_property | functools.singledispatchmethod):
        return [value.func]
    return [value.__wrapped__] if isinstance(value, _CACHED) else []


def closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables of outer functions that ``function`` uses, by name."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def globals_used(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Globals that ``function`` or a function inside it names, of its own file and of own modules that it names."""
    own = function.__globals__
    names = list(dict.fromkeys(_names(function.__code__)))
    if "globals" in names:
        names = list(own)
    modules = [own.get(name, sys.modules.get(name)) for name in names]
    places = [own, *(vars(module) for module in modules if own_module(module))]
    for name in names:
        for place in places:
            if name in place:
                yield name, place[name]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
