"""Names, types and shapes of a model's inputs and outputs, and arrays that fit them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from toolkit.errors import InvalidInput, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = np.ndarray
Dim = int | str
Feeds = Mapping[str, Array]

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *INTEGERS, "bool", "string", "complex64", "complex128", "int4", "uint4")

# Sizes for dims nobody gave a size: small, so that a first look at any model is quick, yet larger than one, since one
# hides broadcasting mistakes. Images are the exception: strided networks need room.
DEFAULT_LENGTH = 16
DEFAULT_PIXELS = 224


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output: ``shape`` is None when even the rank is unknown; a dim is a size or a name.

    ``values`` bounds (both inclusive) what may be fed where the type alone does not say, such as token ids.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    values: tuple[float, float] | None = None

    def __str__(self) -> str:
        dims = "…" if self.shape is None else ",".join(str(dim) for dim in self.shape)
        bounds = "" if self.values is None else f"={self.values[0]:g}..{self.values[1]:g}"
        return f"{self.name}:{self.dtype}[{dims}]{bounds}"

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(dim for dim in self.shape or () if isinstance(dim, str)))


_SPEC = re.compile(
    r"^(?P<name>[^:\[\]=]+):(?P<dtype>[a-z0-9]+)"
    r"\[(?P<dims>[^\]]*)\](?:=(?P<low>-?[\d.e+]+?)\.\.(?P<high>-?[\d.e+]+))?$"
)


def parse_spec(text: str) -> TensorSpec:
    """Read ``name:dtype[dim,dim,…]`` with an optional ``=low..high``, as ``--input`` takes it.

    >>> parse_spec("ids:int64[batch,seq]=0..511").shape
    ('batch', 'seq')

    Raises:
        UsageError: the text does not have that form, or the dtype is unknown.
    """
    match = _SPEC.match(text.strip())
    if match is None:
        raise UsageError(
            "cannot read this input description",
            where="--input",
            got=repr(text),
            expected="NAME:DTYPE[DIM,DIM,…], e.g. 'pixels:float32[batch,3,224,224]' or 'ids:int64[batch,seq]=0..511'",
        )
    dtype = match["dtype"]
    if dtype not in DTYPES:
        raise UsageError("unknown dtype", where=f"--input {text}", got=dtype, expected=nearest(dtype, DTYPES))
    dims = tuple(_parse_dim(part.strip(), text) for part in match["dims"].split(",")) if match["dims"].strip() else ()
    values = None if match["low"] is None else (float(match["low"]), float(match["high"]))
    return TensorSpec(match["name"].strip(), dtype, dims, values)


def _parse_dim(part: str, text: str) -> Dim:
    if part.isdigit() and int(part) > 0:
        return int(part)
    if part.isidentifier():
        return part
    raise UsageError("a dim is a positive size or a name", where=f"--input {text}", got=repr(part))


def parse_dims(items: Iterable[str]) -> dict[str, int]:
    """Read ``name=size`` items, as ``--dim`` takes them.

    Raises:
        UsageError: an item is not ``name=positive integer``.
    """
    dims: dict[str, int] = {}
    for item in items:
        name, separator, size = item.partition("=")
        if not separator or not name or not size.strip().isdigit() or int(size) < 1:
            raise UsageError("cannot read this dim", where="--dim", got=repr(item), expected="NAME=SIZE, e.g. batch=8")
        dims[name.strip()] = int(size)
    return dims


def nearest(word: str, known: Iterable[str]) -> str:
    """``'a', 'b' or 'c'`` with a guess in front when ``word`` looks like a slip of one of them."""
    import difflib

    known = list(known)
    by_lower = {name.lower(): name for name in known}
    close = [by_lower[found] for found in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)]
    listed = ", ".join(sorted(known))
    return f"{close[0]!r} (did you mean that?), or one of: {listed}" if close else f"one of: {listed}"


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype that carries ``dtype``; bfloat16 and the 4-bit types come from ml_dtypes when it is installed.

    Raises:
        InvalidInput: numpy has no such type and ml_dtypes is not installed.
    """
    if dtype == "string":
        return np.dtype(object)
    try:
        return np.dtype(dtype)
    except TypeError:
        try:
            import ml_dtypes
        except ImportError as exc:
            raise InvalidInput(f"numpy has no {dtype}", next_step="pip install ml_dtypes") from exc
        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype))
        return found


def batch_dim(specs: Sequence[TensorSpec]) -> str | None:
    """The name of the dim that counts samples: the first named leading dim among the inputs."""
    for spec in specs:
        if spec.shape and isinstance(spec.shape[0], str):
            return spec.shape[0]
    return None


def complete_dims(specs: Sequence[TensorSpec], dims: Mapping[str, int] | None = None) -> dict[str, int]:
    """Sizes for every named dim of ``specs``: those given, and defaults for the rest.

    Raises:
        UsageError: ``dims`` names one that no input has.
    """
    known = {dim for spec in specs for dim in spec.dynamic_dims}
    dims = dict(dims or {})
    for name in dims:
        if name not in known:
            expected = nearest(name, known) if known else "no --dim: every dim of this model is fixed"
            raise UsageError("the model has no such dim", where="--dim", got=name, expected=expected)
    batch = batch_dim(specs)
    for spec in specs:
        is_image = spec.shape is not None and len(spec.shape) == 4 and spec.dtype in (*FLOATS, "uint8")
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str) and dim not in dims:
                dims[dim] = 1 if dim == batch else DEFAULT_PIXELS if is_image and axis >= 2 else DEFAULT_LENGTH
    return dims


def concrete_shape(spec: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dims[dim] if isinstance(dim, str) else dim for dim in spec.shape or ())


def example_inputs(
    specs: Sequence[TensorSpec], dims: Mapping[str, int] | None = None, *, seed: int = 0
) -> dict[str, Array]:
    """Random arrays that fit ``specs``; the same arguments give the same arrays.

    Floats are standard normal; integers lie in ``spec.values``, else in 0…1, the only range that every embedding and
    gather accepts; masks (names that contain "mask") are all ones, since a fully masked row has no defined answer.
    """
    sizes = complete_dims(specs, dims)
    generator = np.random.default_rng(seed)
    return {spec.name: _example(spec, concrete_shape(spec, sizes), generator) for spec in specs}


def _example(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if spec.dtype == "string":
        return np.full(shape, "a", dtype=object)
    dtype = numpy_dtype(spec.dtype)
    if spec.values is not None:
        low, high = spec.values
        if spec.dtype in FLOATS:
            return np.asarray(generator.uniform(low, high, shape)).astype(dtype)
        return np.asarray(generator.integers(int(low), int(high), shape, endpoint=True)).astype(dtype)
    if "mask" in spec.name:
        return np.ones(shape, dtype)
    if spec.dtype in FLOATS:
        return np.asarray(generator.standard_normal(shape)).astype(dtype)
    return np.asarray(generator.integers(0, 2, shape)).astype(dtype)


def check_feeds(specs: Sequence[TensorSpec], feeds: Feeds, where: str) -> dict[str, int]:
    """Check names, dtypes, ranks and sizes of ``feeds``; returns the size each named dim takes.

    Raises:
        InvalidInput: one line naming the first input that does not fit.
    """
    names = [spec.name for spec in specs]
    for name in feeds:
        if name not in names:
            raise InvalidInput(
                "the model has no such input", where=where, got=repr(name), expected=nearest(name, names)
            )
    sizes: dict[str, int] = {}
    for spec in specs:
        if spec.name not in feeds:
            raise InvalidInput(
                "an input is missing", where=where, got=f"inputs {sorted(feeds)}", expected=f"also {spec}"
            )
        _check_array(spec, feeds[spec.name], sizes, where)
    return sizes


def _check_array(spec: TensorSpec, array: Array, sizes: dict[str, int], where: str) -> None:
    place = f"{where}: input '{spec.name}'"
    if not isinstance(array, np.ndarray):
        raise InvalidInput("not a numpy array", where=place, got=type(array).__name__, expected=spec)
    if array.dtype.name != spec.dtype and not (spec.dtype == "string" and array.dtype.kind in "OUST"):
        raise InvalidInput(
            "wrong dtype",
            where=place,
            got=array.dtype.name,
            expected=spec.dtype,
            next_step=f"array.astype('{spec.dtype}')",
        )
    if not array.dtype.isnative:  # engines read the bytes as if it were
        raise InvalidInput(
            "wrong byte order", where=place, got=array.dtype.str, next_step=f"array.astype('{spec.dtype}')"
        )
    if spec.shape is None:
        return
    if array.ndim != len(spec.shape):
        raise InvalidInput("wrong rank", where=place, got=f"shape {list(array.shape)}", expected=spec)
    for axis, (dim, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
        wanted = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
        if size != wanted:
            raise InvalidInput(
                f"wrong size in axis {axis}",
                where=place,
                got=f"shape {list(array.shape)}",
                expected=f"{dim}={wanted} in {spec}" if isinstance(dim, str) else spec,
            )
