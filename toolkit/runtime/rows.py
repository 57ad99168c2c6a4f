"""Whether a model's rows are independent, f([a; b]) = [f(a); f(b)]: tried, never assumed.

One row is run alone, then beside neighbours that are usual, a thousand times larger, all zero, and all NaN (integers:
other values, the highest, the lowest; masks: all, none, random), in batches of several sizes.

* At one batch size the row has to come out the same to the bit whatever its neighbours are: an engine runs the same
  kernels on the same shape, so any difference comes from a neighbour. Dynamic int8 fails here, since the largest value
  of the whole batch sets its scale.
* Against the row alone it may differ by what another order of additions costs, since kernels are chosen by shape:
  :data:`REORDERED` ulp of the row's largest answer. Integers and truth values have to be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from toolkit.errors import ToolkitError
from toolkit.providers.session import Session
from toolkit.runtime.sizes import running_sizes
from toolkit.tensors import FLOATS, Array, TensorSpec, batch_dim, complete_dims, example_inputs

# Ulp of the largest value of a row's answer. Another order of n additions moves a sum by about the square root of n ulp
# of the sum of magnitudes (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 4.2); n reaches
# a few thousand in the models of today, which is 64. All float models of the zoo and the material stay below 1 on ONNX
# Runtime and OpenVINO; what depends on the batch's size is off by parts of the answer, 100,000 times as much.
REORDERED = 64
# (rows of the batch, place of the row that is looked at): with each kind of neighbours, and with all kinds at once.
_PURE = ((2, 0), (5, 3))
_MIXED = (16, 11)

Answers = Mapping[str, Array]


class Rows(msgspec.Struct, frozen=True):
    """What was found: ``independent``, or not and why; and which axis of which tensor counts rows.

    Attributes:
        inputs: axis by name; an input that is not here is shared by all rows.
        outputs: axis by name.
        worst_ulp: largest difference between a row in a batch and alone, in ulp of the row's largest answer.
    """

    independent: bool
    reason: str = ""
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    worst_ulp: float = 0.0


class _Refused(Exception):
    """The reason why rows are not known to be independent."""


def prove_rows(session: Session, dims: Mapping[str, int] | None = None) -> Rows:
    """Try whether the rows of ``session``'s model are independent; 45 rows are run.

    Args:
        session: open, and not sharing batches yet.
        dims: sizes of the dims that are not the batch; defaults, or others at which the model runs.
    """
    try:
        inputs = input_axes(session.inputs)
        trial = _Trial(session, inputs, example_sizes(session, dims))
        outputs = {spec.name: trial.output_axis(spec.name) for spec in session.outputs}
        worst = max(trial.apart(name, axis) for name, axis in outputs.items())
    except _Refused as exc:
        return Rows(False, str(exc))
    except ToolkitError as exc:
        return Rows(False, f"a batch did not run: {exc}")
    return Rows(True, "", inputs, outputs, worst)


def fixed_reason(specs: Sequence[TensorSpec]) -> str:
    """Why no two calls can share a batch whatever the model computes; empty where they could."""
    try:
        return "" if input_axes(specs) else "no input counts rows"
    except _Refused as exc:
        return str(exc)


def input_axes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """The axis that counts rows, by input; inputs without one are left out."""
    batch = batch_dim(specs)
    if batch is None:
        raise _Refused("its batch size is fixed")
    axes = {}
    for spec in specs:
        if spec.shape is None:
            raise _Refused(f"the shape of input '{spec.name}' is unknown")
        if (count := spec.shape.count(batch)) > 1:
            raise _Refused(f"input '{spec.name}' has {count} axes of the batch's size")
        if count:
            axes[spec.name] = spec.shape.index(batch)
    return axes


def example_sizes(session: Session, dims: Mapping[str, int] | None = None) -> dict[str, int]:
    """Sizes of all named dims at which the model runs, its batch being 1.

    Raises:
        ToolkitError: none of the sizes tried is one.
    """
    batch = batch_dim(session.inputs)
    given = {**(dims or {}), **({batch: 1} if batch else {})}
    sizes = complete_dims(session.inputs, given)
    try:
        session(example_inputs(session.inputs, sizes))
    except ToolkitError:
        found = running_sizes(session, given)
        if found is None:
            raise
        return found
    return sizes


class _Trial:
    """Answers to one row alone and in company."""

    def __init__(self, session: Session, inputs: Mapping[str, int], sizes: Mapping[str, int]) -> None:
        self._session, self._inputs, self._sizes = session, inputs, sizes
        self._batch = str(batch_dim(session.inputs))
        self._row = self._neighbours(1, "usual", seed=1)
        self._alone: Answers = session(self._row)
        self._pure = [
            (count, place, [self._beside(count, place, (kind,)) for kind in _KINDS]) for count, place in _PURE
        ]
        self._mixed = self._beside(*_MIXED, tuple(_KINDS))

    def _beside(self, count: int, place: int, kinds: tuple[str, ...]) -> Answers:
        """Answers to a batch of ``count`` rows with the row at ``place`` among neighbours of ``kinds``."""
        shares = [(count - 1 + index) // len(kinds) for index in range(len(kinds))]
        groups = [self._neighbours(share, kind, seed=2) for share, kind in zip(shares, kinds, strict=True)]
        feeds = dict(self._row)
        for name, axis in self._inputs.items():
            others = np.concatenate([group[name] for group in groups], axis)
            before, after = np.split(others, [place], axis)
            feeds[name] = np.concatenate([before, self._row[name], after], axis)
        return self._session(feeds)

    def _neighbours(self, count: int, kind: str, seed: int) -> dict[str, Array]:
        specs = self._session.inputs
        usual = example_inputs(specs, {**self._sizes, self._batch: count}, seed=seed)
        return {spec.name: _of_kind(spec, usual[spec.name], kind, seed) for spec in specs}

    def output_axis(self, name: str) -> int:
        """The one axis of output ``name`` whose size is the batch's, the other axes staying as they are."""
        runs = [(1, self._alone), (_MIXED[0], self._mixed)]
        runs += [(count, answers) for count, _, found in self._pure for answers in found]
        shapes = [(count, answers[name].shape) for count, answers in runs]
        ranks = {len(shape) for _, shape in shapes}
        axes = [axis for axis in range(min(ranks)) if all(shape[axis] == count for count, shape in shapes)]
        if len(ranks) != 1 or len(axes) != 1:
            listed = ", ".join(f"{list(shape)} for {count}" for count, shape in dict(shapes).items())
            raise _Refused(f"output '{name}' has not one axis that counts rows: {listed}")
        if len({shape[: axes[0]] + shape[axes[0] + 1 :] for _, shape in shapes}) != 1:
            raise _Refused(f"the shape of output '{name}' depends on what is fed")
        return axes[0]

    def apart(self, name: str, axis: int) -> float:
        """How far the row in a batch lies from itself alone, in ulp."""
        alone = self._alone[name]
        found = [(_MIXED[0], self._mixed[name].take([_MIXED[1]], axis))]
        for count, place, answers in self._pure:
            own = [outcome[name].take([place], axis) for outcome in answers]
            for other, kind in zip(own, _KINDS.values(), strict=True):
                if not _same_bits(own[0], other):
                    raise _Refused(f"in a batch of {count}, output '{name}' of a row changes with {kind}")
            found.append((count, own[0]))
        return max(_apart(name, alone, beside, count) for count, beside in found)


# What neighbours are like, by kind, as reasons say it.
_KINDS = {
    "usual": "its neighbours",
    "loud": "neighbours a thousand times larger",
    "zero": "neighbours that are zero",
    "nan": "neighbours that are NaN",
}
_FLOAT_KINDS: Mapping[str, Callable[[Array], Array]] = {
    "usual": lambda array: array,
    "loud": lambda array: array * array.dtype.type(1000),
    "zero": np.zeros_like,
    "nan": lambda array: np.full_like(array, np.nan),
}


def _of_kind(spec: TensorSpec, array: Array, kind: str, seed: int) -> Array:
    if spec.dtype in FLOATS:
        with np.errstate(over="ignore"):  # in float16
            return _FLOAT_KINDS[kind](array)
    if spec.dtype == "string" or kind == "usual":
        return array
    low, high = (0, 1) if spec.values is None else (int(spec.values[0]), int(spec.values[1]))
    if kind == "nan":
        generator = np.random.default_rng(seed + 1)
        return np.asarray(generator.integers(low, high, array.shape, endpoint=True)).astype(array.dtype)
    return np.full_like(array, high if kind == "loud" else low)


def _same_bits(one: Array, other: Array) -> bool:
    if one.dtype == object:
        return bool(np.array_equal(one, other))
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def _apart(name: str, alone: Array, beside: Array, count: int) -> float:
    """The difference in ulp of the largest answer.

    Raises:
        _Refused: it is more than another order of additions explains.
    """
    text = f"output '{name}' of a row in a batch of {count} is not that of the row alone"
    if _same_bits(alone, beside):
        return 0.0
    one, other = alone.astype(np.float64), beside.astype(np.float64)
    finite = np.isfinite(one)
    if alone.dtype.name not in FLOATS or not np.array_equal(finite, np.isfinite(other)):
        raise _Refused(text)
    largest = float(np.max(np.abs(one), initial=0.0, where=finite))
    ulp = largest * _epsilon(alone.dtype) or float(np.finfo(np.float32).tiny)
    apart = float(np.max(np.abs(one - other), initial=0.0, where=finite)) / ulp
    if apart > REORDERED:
        raise _Refused(f"{text}: {apart:.0f} ulp apart, of which another order of additions explains {REORDERED}")
    return apart


def _epsilon(dtype: np.dtype[Any]) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)
