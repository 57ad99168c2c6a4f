"""At which sizes an export is traced and judged: those the module itself takes, found by asking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from toolkit.errors import ParityError, UsageError, one_line
from toolkit.tensors import FLOATS, TensorSpec, batch_dim

# Tried in this order for the dims that are no batch; small first, since attention over pixels takes memory with the
# fourth power of their number. Traced sizes differ from each other where the module allows it, so
# that exporters do not take two dims for one; unseen sizes are larger, and odd, so that a hidden rounding shows.
_TRACED = {
    "length": (13, 16, 8, 32, 64, 4, 2, 128, 256, 512),
    "pixels": (32, 64, 96, 128, 224, 256, 320, 512, 640, 28, 16, 8),
}
_UNSEEN = {"length": (37, 41, 300, 24, 64, 48), "pixels": (64, 96, 128, 160, 192, 256, 288, 320, 384, 448, 512, 1024)}
_SMALLEST = (1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 96, 128, 224)
_BATCH = {"traced": 2, "unseen": 3}
_STEP = {"length": 2, "pixels": 32}

Runs = Callable[[Mapping[str, int]], Exception | None]


class Sizes(msgspec.Struct, frozen=True):
    """Sizes of all dims, by case; the first case is the traced one. ``notes`` say which sizes the module refused."""

    traced: dict[str, int]
    cases: dict[str, dict[str, int]]
    notes: tuple[str, ...]


def find_sizes(specs: Sequence[TensorSpec], runs: Runs, given: Mapping[str, int] | None = None) -> Sizes:
    """Ask the module which sizes it takes.

    Args:
        specs: its inputs.
        runs: runs the module at given sizes; returns what it raised, or None.
        given: sizes to trace at, from a source that knows them.

    Raises:
        UsageError: it runs at no size tried, or answers what no graph can.
        ParityError: a dim that is said to be dynamic has one size only.
    """
    kinds = dim_kinds(specs)
    traced = _first(_traced_candidates(kinds, given or {}), runs)
    if isinstance(traced, UsageError):  # what it answers is wrong, whatever it is fed
        raise traced
    if isinstance(traced, Exception):
        raise UsageError(
            "the module does not run on inputs of this description",
            where=", ".join(map(str, specs)),
            got=f"{type(traced).__name__}: {one_line(traced, 200)}",
            next_step="check names, order, dtypes, sizes and =low..high ranges of --input",
        )
    if not kinds:
        return Sizes({}, {"fixed": {}}, ())
    cases, notes = {"traced": traced}, []
    smallest = _first(_smallest_candidates(kinds, traced), runs)
    if not isinstance(smallest, Exception):
        cases["smallest"] = smallest
    unseen: dict[str, int] = {}
    for name in kinds:
        found = _first(_unseen_candidates(name, kinds, traced), runs)
        if isinstance(found, Exception):
            _require_moving(name, kinds, traced, cases, runs, found)
            notes.append(f"the module takes no {name} above {traced[name]}")
        else:
            cases[f"unseen {name}"] = found
            unseen[name] = found[name]
    together = {**traced, **unseen}
    if len(unseen) > 1 and runs(together) is None:
        cases["all unseen"] = together
    return Sizes(traced, cases, tuple(notes))


def dim_kinds(specs: Sequence[TensorSpec]) -> dict[str, str]:
    """``batch``, ``pixels`` or ``length`` per named dim."""
    batch = batch_dim(specs)
    kinds: dict[str, str] = {}
    for spec in specs:
        image = spec.shape is not None and len(spec.shape) == 4 and spec.dtype in (*FLOATS, "uint8")
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str):
                kinds.setdefault(dim, "batch" if dim == batch else "pixels" if image and axis >= 2 else "length")
    return kinds


def _first(candidates: Iterator[dict[str, int]], runs: Runs) -> dict[str, int] | Exception:
    """The first sizes that run, or what the module said to the first that did not."""
    refusal: Exception | None = None
    for sizes in candidates:
        problem = runs(sizes)
        if problem is None:
            return sizes
        refusal = refusal or problem
    return refusal or ValueError("no sizes to try")


def _traced_candidates(kinds: Mapping[str, str], given: Mapping[str, int]) -> Iterator[dict[str, int]]:
    free = {name: kind for name, kind in kinds.items() if name not in given}
    rounds = max((len(_TRACED[kind]) for kind in free.values() if kind != "batch"), default=1)
    for attempt in range(rounds):
        for spread in (1, 0):  # sizes that differ first, equal ones where the module wants that
            place: dict[str, int] = {"length": 0, "pixels": 0}
            sizes = {name: size for name, size in given.items() if name in kinds}
            for name, kind in free.items():
                if kind == "batch":
                    sizes[name] = _BATCH["traced"]
                    continue
                base = _TRACED[kind][min(attempt, len(_TRACED[kind]) - 1)]
                sizes[name] = base + spread * place[kind] * _STEP[kind]
                place[kind] += 1
            yield {name: sizes[name] for name in kinds}


def _smallest_candidates(kinds: Mapping[str, str], traced: Mapping[str, int]) -> Iterator[dict[str, int]]:
    for batch in (1, traced.get(next((name for name, kind in kinds.items() if kind == "batch"), ""), 1)):
        for size in _SMALLEST:
            sizes = {name: batch if kind == "batch" else min(size, traced[name]) for name, kind in kinds.items()}
            if sizes != dict(traced):
                yield sizes


def _unseen_candidates(name: str, kinds: Mapping[str, str], traced: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes with ``name`` larger than traced; where it has to equal other dims, these grow with it."""
    kind, now = kinds[name], traced[name]
    sizes = (_BATCH["unseen"], 4, 8, 2 * now) if kind == "batch" else (*_UNSEEN[kind], 2 * now, now + 1)
    larger = [size for size in sizes if size > now]
    for size in larger:
        yield {**traced, name: size}
    others = [other for other in kinds if kinds[other] == kind and traced[other] == now]
    if len(others) > 1:
        for size in larger:
            yield {**traced, **dict.fromkeys(others, size)}


def _require_moving(
    name: str, kinds: Mapping[str, str], traced: Mapping[str, int], cases: Mapping[str, Mapping[str, int]], runs: Runs,
    refusal: Exception,
) -> None:  # fmt: skip
    """A dim without a larger size has to have another one at least."""
    if any(sizes[name] != traced[name] for sizes in cases.values()):
        return
    if any(runs({**traced, name: size}) is None for size in _SMALLEST if size != traced[name]):
        return
    raise ParityError(
        "the module runs at one size of this dim only",
        where=f"dim '{name}'",
        got=f"{traced[name]} works, others raise {type(refusal).__name__}: {one_line(refusal, 160)}",
        next_step=f"give the size instead of the name: {name} → {traced[name]}",
    )
