"""``PACKAGE.MODULE:FACTORY`` and ``FILE.py:FACTORY``: a person's own code.

The factory is a module, a class without arguments, or a function that returns a module or ``(module, inputs)``; it gets
what the text says behind a question mark, as ``FILE.py:FACTORY?width=64``. What
the file says beside it is used too: ``INPUTS`` (texts, TensorSpecs, or a dict of example tensors), ``OUTPUTS``
(names), ``TASK``, ``LABELS``, ``LICENSE``, ``STATE`` and ``PREPROCESSING``; a dict under one of these whose keys are
names of factories holds one value per factory.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from toolkit.errors import InvalidModel, UsageError, one_line
from toolkit.exporter.adapter import argument_names
from toolkit.exporter.inputs import input_specs
from toolkit.exporter.seeding import seeded
from toolkit.exporter.sources.source import Source
from toolkit.files import existing_file
from toolkit.tensors import nearest

_EXPECTED = "a function without arguments that returns a torch.nn.Module, or (module, inputs)"


def open_factory(text: str, request: Any) -> Source:
    """Import the code and call the factory; weights that it draws are the same every time.

    Raises:
        UsageError: there is no such module, file or factory, or it does not return a module.
        InvalidModel: the person's code raised something.
    """
    origin, _, attribute = text.rpartition(":")
    code = _from_file(origin) if origin.endswith(".py") else _from_package(origin)
    made = _call(_attribute(code, attribute, text), text, request.arguments)
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise UsageError(
            "the factory returned something else", where=text, got=type(module).__name__, expected=_EXPECTED
        )
    said = {name: _said(code, name, attribute) for name in ("INPUTS", "OUTPUTS", "TASK", "LABELS", "LICENSE", "STATE")}
    inputs = said["INPUTS"] if inputs is None else inputs
    return Source(
        name=f"{Path(origin).name}:{attribute}",
        module=module,
        inputs=None if inputs is None else input_specs(inputs, argument_names(module)),
        outputs=tuple(said["OUTPUTS"] or ()),
        labels=tuple(str(label) for label in said["LABELS"] or ()),
        state=dict(said["STATE"] or {}),
        task=said["TASK"] or "",
        license=said["LICENSE"] or "",
        preprocessing=_said(code, "PREPROCESSING", attribute),
    )


def _from_file(origin: str) -> ModuleType:
    path = existing_file(origin, "factory file").resolve()
    spec = importlib.util.spec_from_file_location(f"toolkit_factory_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    # Classes find their module by name, as dataclasses and pickles want.
    sys.modules[spec.name] = code
    with _importable(path.parent), _told(origin), seeded():
        spec.loader.exec_module(code)
    return code


def _from_package(origin: str) -> ModuleType:
    with _importable(Path.cwd()), _told(origin), seeded():
        try:
            return importlib.import_module(origin)
        except ModuleNotFoundError as exc:
            if exc.name is None or not origin.startswith(exc.name):
                raise
            raise UsageError(
                "no such Python module", where=origin, got=f"nothing called {exc.name!r}",
                next_step="a file is written FILE.py:FACTORY",
            ) from exc  # fmt: skip


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the person's code import what lies beside it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _told(where: str) -> Iterator[None]:
    """One line for whatever the person's code raises."""
    try:
        yield
    except (UsageError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # SystemExit in a person's file included
        raise InvalidModel(
            "the code raised an exception",
            where=f"{where}{_line(exc)}",
            got=f"{type(exc).__name__}: {one_line(exc, 200)}",
            next_step="run again with --debug for the traceback",
        ) from exc


def _line(exc: BaseException) -> str:
    """``, line 12`` of the innermost frame."""
    if isinstance(exc, SyntaxError):
        return f", line {exc.lineno}"
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace else ""


def _attribute(code: ModuleType, attribute: str, text: str) -> Any:
    found: Any = code
    for part in attribute.split("."):
        if not part or not hasattr(found, part):
            known = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
            raise UsageError("no such factory", where=text, got=repr(attribute), expected=nearest(attribute, known))
        found = getattr(found, part)
    return found


def _call(factory: Any, text: str, arguments: Mapping[str, Any]) -> Any:
    if isinstance(factory, nn.Module):
        if arguments:
            raise UsageError("a module takes no arguments", where=text, got=", ".join(arguments), expected="a function")
        return factory
    if not callable(factory):
        raise UsageError("this is no factory", where=text, got=type(factory).__name__, expected=_EXPECTED)
    with _told(text), seeded():
        return factory(**arguments)


def _said(code: ModuleType, name: str, factory: str) -> Any:
    value = getattr(code, name, None)
    if isinstance(value, Mapping) and factory in value and callable(getattr(code, factory, None)):
        return value[factory]
    return value
