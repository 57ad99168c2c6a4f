"""The one door to the model zoo, which stands beside the package in a checkout and travels inside it in a wheel."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from toolkit.errors import MissingDependency


def zoo_module(name: str) -> Any:
    """The zoo's module ``name``, such as ``registry``, which needs no torch, or ``training``, which does.

    Raises:
        MissingDependency: a package that the module needs is not installed.
    """
    package = "toolkit.model_zoo" if importlib.util.find_spec("toolkit.model_zoo") else "model_zoo"
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as exc:
        raise MissingDependency.of((exc.name or "torch").partition(".")[0], "export", "the zoo") from exc
