"""Functions of the user's that an option names: ``module:function`` or ``path/to/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from toolkit.errors import UsageError
from toolkit.files import existing_file
from toolkit.tensors import nearest


def load_function(text: str, option: str) -> Callable[..., Any]:
    """The function that ``text`` names. Its module is code of the user's, and is run.

    Args:
        text: ``module:function`` or ``file.py:function``; the function may be ``Class.method``.
        option: what the text was given for; used in messages.

    Raises:
        UsageError: not of that form, the module does not import, or has no such function.
        FileProblem: the file is missing.
    """
    place, separator, name = text.rpartition(":")
    if not separator or not place or not name:
        raise UsageError(
            "cannot read this", where=option, got=repr(text), expected="MODULE:FUNCTION or FILE.py:FUNCTION"
        )
    module = _from_file(Path(place), option) if place.endswith(".py") else _from_path(place, option)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            expected = nearest(part, known) if known else None
            raise UsageError("no such function", where=f"{option} {text}", got=part, expected=expected)
        found = getattr(found, part)
    if not callable(found):
        raise UsageError("not a function", where=f"{option} {text}", got=type(found).__name__)
    return found  # type: ignore[no-any-return]  # callable() narrows Any to nothing


def _from_path(name: str, option: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        next_step = "write FILE.py:FUNCTION for a file" if Path(f"{name}.py").exists() else None
        raise UsageError("cannot import this module", where=option, got=exc, next_step=next_step) from exc
    except Exception as exc:  # whatever the user's module raises while it is imported
        raise _failed(name, option, exc) from exc


def _from_file(path: Path, option: str) -> ModuleType:
    existing_file(path, "Python file")
    # A name that no import statement can mean, so that a user's metrics.py never takes the place of a module.
    name = f"<{path.resolve()}>"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:  # as above
        del sys.modules[name]
        raise _failed(path, option, exc) from exc
    return module


def _failed(place: object, option: str, exc: Exception) -> UsageError:
    return UsageError(
        f"{place} raised an error while it was imported", where=option, got=f"{type(exc).__name__}: {exc}"
    )
