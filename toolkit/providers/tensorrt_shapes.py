"""The ranges of sizes that a TensorRT engine is built for: one (min, opt, max) for each dynamic dim.

An engine runs the sizes of its optimization profile and no others. ONNX Runtime would build another engine in the
middle of a request, which takes minutes; here the ranges are stated when the model is opened, and other sizes are an
error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from toolkit.errors import InvalidInput, InvalidTarget
from toolkit.tensors import FLOATS, Feeds, TensorSpec, batch_dim, check_feeds, nearest

_ITEM = re.compile(r"^\s*(?P<dim>[^=,:\s]+)\s*=\s*(?P<sizes>\d+(:\d+:\d+)?)\s*$")


class SizeRange(msgspec.Struct, frozen=True):
    """The smallest, the preferred and the largest size of a dim."""

    low: int
    best: int
    high: int

    def __contains__(self, size: int) -> bool:
        return self.low <= size <= self.high

    def __str__(self) -> str:
        return f"{self.low}:{self.best}:{self.high}"


# For dims that the target does not mention. A profile that is wider than needed costs some speed and memory, so these
# fit common use (a web request's batch, an encoder's text, a camera image); whoever needs others says so in the
# target.
DEFAULT_BATCH = SizeRange(1, 1, 32)
DEFAULT_LENGTH = SizeRange(1, 128, 512)
DEFAULT_PIXELS = SizeRange(32, 224, 1024)


def parse_ranges(text: str, where: str) -> dict[str, SizeRange]:
    """Read ``dim=min:opt:max,…``; ``dim=size`` stands for one fixed size.

    Raises:
        InvalidTarget: the text does not have that form, or the sizes are out of order.
    """
    ranges: dict[str, SizeRange] = {}
    for item in filter(None, text.split(",")):
        match = _ITEM.match(item)
        sizes = [int(size) for size in match["sizes"].split(":")] if match else []
        if match is None or sizes != sorted(sizes) or sizes[0] < 1:
            expected = "DIM=MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, e.g. batch=1:8:32,seq=1:128:512"
            raise InvalidTarget("cannot read this range of sizes", where=where, got=repr(item), expected=expected)
        ranges[match["dim"]] = SizeRange(*(sizes * 3)[:3])
    return ranges


def complete_ranges(specs: Sequence[TensorSpec], given: Mapping[str, SizeRange], where: str) -> dict[str, SizeRange]:
    """A range for every named dim of ``specs``: the given ones, and defaults for the rest.

    Raises:
        InvalidTarget: ``given`` names a dim that the model does not have.
    """
    known = tuple(dict.fromkeys(dim for spec in specs for dim in spec.dynamic_dims))
    for dim in given:
        if dim not in known:
            expected = nearest(dim, known) if known else "none: every dim of this model is fixed"
            raise InvalidTarget("the model has no such dim", where=where, got=dim, expected=expected)
    batch = batch_dim(specs)
    return {dim: given.get(dim) or (DEFAULT_BATCH if dim == batch else _default(dim, specs)) for dim in known}


def _default(dim: str, specs: Sequence[TensorSpec]) -> SizeRange:
    is_pixels = any(
        spec.dtype in (*FLOATS, "uint8") and len(spec.shape or ()) == 4 and dim in (spec.shape or ())[1:]
        for spec in specs
    )
    return DEFAULT_PIXELS if is_pixels else DEFAULT_LENGTH


def profile_options(specs: Sequence[TensorSpec], ranges: Mapping[str, SizeRange]) -> dict[str, str]:
    """ONNX Runtime's three options, such as ``ids:1x1,mask:1x1``; none for a model whose shapes are all fixed."""
    dynamic = [spec for spec in specs if spec.dynamic_dims]
    if not dynamic:
        return {}
    corners = {"min": "low", "opt": "best", "max": "high"}
    return {
        f"trt_profile_{name}_shapes": ",".join(f"{spec.name}:{_corner(spec, ranges, field)}" for spec in dynamic)
        for name, field in corners.items()
    }


def _corner(spec: TensorSpec, ranges: Mapping[str, SizeRange], field: str) -> str:
    return "x".join(str(getattr(ranges[dim], field) if isinstance(dim, str) else dim) for dim in spec.shape or ())


def check_ranges(specs: Sequence[TensorSpec], feeds: Feeds, ranges: Mapping[str, SizeRange], where: str) -> None:
    """Check that ``feeds`` lie inside what the engine was built for.

    Raises:
        InvalidInput: one line naming the dim, its size and the range.
    """
    for dim, size in check_feeds(specs, feeds, where).items():
        if size not in ranges[dim]:
            raise InvalidInput(
                f"the TensorRT engine was not built for this size of '{dim}'",
                where=where,
                got=size,
                expected=f"{ranges[dim].low} to {ranges[dim].high}",
                next_step=f'set engine_options = {{ profile_dims = "{dim}=MIN:OPT:MAX" }} in the target',
            )
