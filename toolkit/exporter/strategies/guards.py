"""What torch.export assumed about sizes, and at which sizes that assumption can be tried.

Tracing a module at one size takes one path through its Python code. torch.export writes down, as guards, what that path
depends on: ``L['x'].size()[0] <= 16``. Sizes that break a guard are either refused by the module itself, which makes
the guard a property of the module; or the module does something else there, and the graph has to be judged at them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from toolkit.exporter.sizes import Runs, dim_kinds
from toolkit.tensors import TensorSpec, concrete_shape

_SMALL = tuple(range(1, 34))
_MOST_CASES = 12
_MOST_TRIALS = 40
_GRID = 4000
_LARGEST = 4096
# What a trial may have: attention takes memory with the square of a length, and activations that of many inputs.
_MOST_GROWTH = {"batch": 4096, "length": 160, "pixels": 4}
_MOST_ELEMENTS = 1 << 18
_READABLE = 40


class _Sized:
    """Stands for a tensor in a guard: ``.size()`` and ``.shape`` are all that guards on sizes use."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def size(self, axis: int | None = None) -> tuple[int, ...] | int:
        return self.shape if axis is None else self.shape[axis]


def breaking_sizes(
    guards: Sequence[str], specs: Sequence[TensorSpec], traced: Mapping[str, int], runs: Runs
) -> dict[str, dict[str, int]]:
    """Sizes that break a guard and that the module nevertheless takes, by a label for the report."""
    found: dict[str, dict[str, int]] = {}
    tried: dict[tuple[int, ...], bool] = {}
    for guard in dict.fromkeys(guards):
        for sizes in _spread(list(_violations(guard, specs, traced))):
            key = tuple(sizes.values())
            if key not in tried and len(tried) < _MOST_TRIALS and _affordable(specs, sizes, traced):
                tried[key] = runs(sizes) is None
            if tried.get(key) and sizes not in found.values() and len(found) < _MOST_CASES:
                text = readable(guard, specs)
                text = text if len(text) <= _READABLE else "what was traced"
                found[f"beyond {text} ({_text(sizes, traced)})"] = sizes
    return found


def _affordable(specs: Sequence[TensorSpec], sizes: Mapping[str, int], traced: Mapping[str, int]) -> bool:
    """Whether running at ``sizes`` cannot take the machine's memory."""
    kinds = dim_kinds(specs)
    if any(size > _MOST_GROWTH[kinds[name]] * traced[name] for name, size in sizes.items()):
        return False
    now, then = (sum(math.prod(concrete_shape(spec, chosen)) for spec in specs) for chosen in (sizes, traced))
    return now <= max(_MOST_ELEMENTS, 16 * then)


def _text(sizes: Mapping[str, int], traced: Mapping[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in sizes.items() if size != traced[name])


def _violations(guard: str, specs: Sequence[TensorSpec], traced: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes at which ``guard`` does not hold, those that change one dim first."""
    code = compile(guard.strip(), "guard", "eval")
    constants = {int(text) + step for text in re.findall(r"\d+", _without_places(guard)) for step in (-1, 0, 1, 2)}
    sizes = sorted({*_SMALL, *(size for size in constants if 1 <= size <= _LARGEST)})
    names = list(traced)
    singles = ({**traced, name: size} for size in sizes for name in names)
    pairs = (
        {**traced, one: size, other: another}
        for one, other in itertools.combinations(names, 2)
        for size in sizes
        for another in sizes
    )
    for candidate in itertools.islice(itertools.chain(singles, pairs), _GRID):
        if not _holds(code, specs, candidate):
            yield candidate


def _without_places(guard: str) -> str:
    """The guard without input indices and axes, whose numbers are no sizes."""
    return re.sub(r"L\['tensors'\]\[\d+\]\.(size\(\)|shape)\[\d+\]", "", guard)


def _holds(code: object, specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> bool:
    scope = {"L": {"tensors": [_Sized(concrete_shape(spec, sizes)) for spec in specs]}, "Max": max, "Min": min}
    try:
        # The text comes from torch.export, which wrote it as Python; nothing of it is the user's.
        return bool(eval(code, {"__builtins__": {"max": max, "min": min, "abs": abs, "int": int}}, scope))  # type: ignore[arg-type]
    except ZeroDivisionError:
        return False


def _spread(items: list[dict[str, int]]) -> Iterator[dict[str, int]]:
    """First, last and middle of a list first: a path that is wrong somewhere beyond a guard need not be so at its
    edge."""
    for index in dict.fromkeys((0, len(items) - 1, len(items) // 2, len(items) // 4)):
        if 0 <= index < len(items):
            yield items[index]


def readable(guard: str, specs: Sequence[TensorSpec]) -> str:
    """The guard in the names of dims: ``batch <= 16``."""

    def name(match: re.Match[str]) -> str:
        spec = specs[int(match[1])]
        return str((spec.shape or ())[int(match[2])])

    return re.sub(r"L\['tensors'\]\[(\d+)\]\.size\(\)\[(\d+)\]", name, guard)
