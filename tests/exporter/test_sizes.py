from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from toolkit.errors import ParityError, UsageError
from toolkit.exporter.sizes import find_sizes
from toolkit.exporter.strategies.guards import breaking_sizes, readable
from toolkit.tensors import parse_spec

IDS = (parse_spec("ids:int64[batch,seq]"),)
IMAGE = (parse_spec("image:float32[batch,3,height,width]"),)


def taking(rule: Callable[[Mapping[str, int]], bool]) -> Callable[[Mapping[str, int]], Exception | None]:
    """A module that runs where ``rule`` holds."""
    return lambda sizes: None if rule(sizes) else RuntimeError("this size does not fit")


def test_each_dim_is_seen_at_one_and_larger_than_traced() -> None:
    sizes = find_sizes(IDS, taking(lambda _: True))
    assert sizes.cases["smallest"] == {"batch": 1, "seq": 1}
    assert sizes.cases["unseen batch"]["batch"] > sizes.traced["batch"] > 1
    assert sizes.cases["unseen seq"]["seq"] > sizes.traced["seq"] > 1
    assert sizes.cases["all unseen"]["seq"] == sizes.cases["unseen seq"]["seq"]
    assert sizes.traced["batch"] != sizes.traced["seq"]


def test_sizes_the_module_refuses_are_avoided() -> None:
    sizes = find_sizes(IMAGE, taking(lambda s: s["height"] % 32 == 0 and s["width"] % 32 == 0 and s["height"] >= 64))
    assert all(case["height"] % 32 == 0 for case in sizes.cases.values())
    assert sizes.cases["smallest"]["height"] == 64
    assert sizes.traced["height"] != sizes.traced["width"]


def test_dims_that_have_to_be_equal_grow_together() -> None:
    specs = (parse_spec("a:float32[batch,left]"), parse_spec("b:float32[batch,right]"))
    sizes = find_sizes(specs, taking(lambda s: s["left"] == s["right"]))
    assert sizes.traced["left"] == sizes.traced["right"]
    assert sizes.cases["unseen left"]["right"] > sizes.traced["right"]


def test_an_upper_bound_is_a_note() -> None:
    sizes = find_sizes(IDS, taking(lambda s: s["seq"] <= 13))
    assert sizes.notes == ("the module takes no seq above 13",)


def test_a_dim_with_one_size_is_no_dynamic_dim() -> None:
    with pytest.raises(ParityError, match=r"dim 'seq': the module runs at one size of this dim only; got 16 works"):
        find_sizes(IDS, taking(lambda s: s["seq"] == 16))


def test_a_module_that_never_runs_says_why() -> None:
    with pytest.raises(UsageError, match=r"does not run on inputs of this description; got RuntimeError: this size"):
        find_sizes(IDS, taking(lambda _: False))


def test_fixed_shapes_have_one_case() -> None:
    assert find_sizes((parse_spec("x:float32[2,3]"),), taking(lambda _: True)).cases == {"fixed": {}}


GUARD = "L['tensors'][0].size()[1] <= 16"


def test_guards_are_tried_where_the_module_takes_sizes_beyond_them() -> None:
    found = breaking_sizes([GUARD], IDS, {"batch": 3, "seq": 13}, taking(lambda _: True))
    assert {"batch": 3, "seq": 17} in found.values()
    assert next(iter(found)).startswith("beyond seq <= 16 (seq=")
    assert breaking_sizes([GUARD], IDS, {"batch": 3, "seq": 13}, taking(lambda s: s["seq"] <= 16)) == {}


@pytest.mark.parametrize(
    ("guard", "breaking"),
    [
        ("L['tensors'][0].size()[0] != 7", {"batch": 7, "seq": 13}),
        ("L['tensors'][0].size()[1] % 2 == 1", {"batch": 3, "seq": 2}),
        ("L['tensors'][0].size()[1] < 1000", {"batch": 3, "seq": 1000}),
        ("4 // (L['tensors'][0].size()[0] - 1) != 9", {"batch": 1, "seq": 13}),  # divides by zero
    ],
)
def test_sizes_that_break_a_guard_are_found(guard: str, breaking: dict[str, int]) -> None:
    assert breaking in breaking_sizes([guard], IDS, {"batch": 3, "seq": 13}, taking(lambda _: True)).values()


def test_guards_read_in_names_of_dims() -> None:
    assert readable(GUARD, IDS) == "seq <= 16"
