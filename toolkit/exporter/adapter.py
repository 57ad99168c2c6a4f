"""Any module as one that takes a flat list of tensors and returns a flat tuple of tensors, each with a name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor, nn

from toolkit.errors import UsageError
from toolkit.tensors import TensorSpec, nearest

# Names of submodules and weights inside an Adapter start with this; the graph's names are given without it.
PREFIX = "module."
_ANSWERS = "a tensor, or a mapping, tuple, list or dataclass of tensors"


@final
class Adapter(nn.Module):  # type: ignore[misc]  # torch is untyped to the checker
    """Calls a module by its argument names and flattens what it returns.

    An input called ``state.0`` is the first entry of a tuple passed as ``state``; ``batch.ids`` the entry ``ids`` of a
    dict passed as ``batch``. Inputs that no spec names keep their defaults.
    """

    def __init__(self, module: nn.Module, specs: Sequence[TensorSpec], output_names: Sequence[str] = ()) -> None:
        super().__init__()
        self.module = module
        self._input_names = tuple(spec.name for spec in specs)
        self._output_names = tuple(output_names)
        self._by_name = _check_arguments(module, self._input_names)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in self.named(*tensors))

    def named(self, *tensors: Tensor) -> list[tuple[str, Tensor]]:
        """The outputs with their names.

        Raises:
            UsageError: there is none, something that is no tensor, or another number than there are names.
        """
        arguments = nested(zip(self._input_names, tensors, strict=True))
        if self._by_name:
            result = self.module(**arguments)
        else:
            result = self.module(*arguments.values())
        outputs = [(self._free(name), tensor) for name, tensor in named_outputs(result)]
        if not outputs:
            raise UsageError(
                "the module returns no tensor", where=f"{type(self.module).__name__}.forward",
                got="None" if result is None else f"a {type(result).__name__} without one", expected=_ANSWERS,
                next_step="return what the graph is to answer",
            )  # fmt: skip
        if not self._output_names:
            return outputs
        if len(self._output_names) != len(outputs):
            raise UsageError(
                "wrong number of output names", got=", ".join(self._output_names), expected=f"{len(outputs)} names"
            )
        return [(name, tensor) for name, (_, tensor) in zip(self._output_names, outputs, strict=True)]

    def _free(self, name: str) -> str:
        """Inputs and outputs share one space of names in a graph."""
        return f"{name}_out" if name in self._input_names else name


def _check_arguments(module: nn.Module, names: Sequence[str]) -> bool:
    """Whether inputs are passed by name; by position where none of them names an argument.

    Raises:
        UsageError: some do and some do not, there are too many, or a required argument is missing.
    """
    try:
        parameters = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return False
    kinds = {parameter.kind for parameter in parameters.values()}
    wanted = list(dict.fromkeys(name.partition(".")[0] for name in names))
    known = [name for name in wanted if name in parameters]
    where = f"{type(module).__name__}.forward"
    if len(known) < len(wanted) and inspect.Parameter.VAR_KEYWORD not in kinds:
        room = len(parameters) if inspect.Parameter.VAR_POSITIONAL not in kinds else len(wanted)
        unknown = next(name for name in wanted if name not in parameters)
        if known or len(wanted) > room:
            raise UsageError("no such argument", where=where, got=unknown, expected=nearest(unknown, parameters))
        return False
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    missing = [name for name in required if name not in wanted]
    if missing:
        raise UsageError(
            "an argument has no input", where=where, got=", ".join(names), expected=f"also {', '.join(missing)}",
            next_step=f"--input '{missing[0]}:float32[batch,…]'",
        )  # fmt: skip
    return True


def nested(named: Any) -> dict[str, Any]:
    """Group dotted names: ``[("state.0", a), ("state.1", b)]`` becomes ``{"state": (a, b)}``."""
    top: dict[str, Any] = {}
    for name, value in named:
        *path, last = name.split(".")
        place = top
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return {name: _tuples(value) for name, value in top.items()}


def _tuples(value: Any) -> Any:
    """Dicts whose keys count from zero are tuples."""
    if not isinstance(value, dict):
        return value
    inner = {name: _tuples(item) for name, item in value.items()}
    return tuple(inner.values()) if list(inner) == [str(index) for index in range(len(inner))] else inner


def named_outputs(result: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """All tensors of ``result`` with names: keys of mappings, fields of dataclasses and named tuples, else places.

    Raises:
        UsageError: it holds something that a graph cannot answer.
    """
    if isinstance(result, Tensor):
        return [(name or "output", result)]
    if result is None:
        return []
    parts = _parts(result)
    if parts is None:
        raise UsageError(
            "the module returns something else than tensors",
            where=f"output {name}" if name else "output",
            got=type(result).__name__,
            expected=_ANSWERS,
        )
    prefix = f"{name}." if name else "" if isinstance(next(iter(parts), 0), str) else "output_"
    return [item for key, value in parts.items() for item in named_outputs(value, f"{prefix}{key}")]


def _parts(result: Any) -> dict[Any, Any] | None:
    if isinstance(result, Mapping):
        return {str(key): value for key, value in result.items()}
    if dataclasses.is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True))
    if isinstance(result, tuple | list):
        return dict(enumerate(result))
    return None


def argument_names(module: nn.Module) -> list[str]:
    """Names of the arguments of ``forward``, for inputs that come without names."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [item.name for item in parameters if item.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
