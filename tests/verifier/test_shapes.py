from __future__ import annotations

import pytest

from toolkit.errors import UsageError
from toolkit.tensors import parse_spec
from toolkit.verifier.shapes import larger_sizes, merge_specs, shape_cases

IDS = parse_spec("ids:int64[batch,seq]=0..9")
IMAGE = parse_spec("image:float32[batch,3,height,width]")


def test_every_dim_is_seen_smallest_and_unseen_larger() -> None:
    cases = {case.label: case for case in shape_cases([IDS])}
    assert cases["smallest"].dims == {"batch": 1, "seq": 1}
    usual = cases["usual"].dims
    for name in ("batch", "seq"):
        assert cases["larger"].dims[name] > usual[name] > 1
        assert cases[f"larger {name}"].dims == {**usual, name: cases["larger"].dims[name]}


def test_images_get_pixels_and_larger_smallest_sizes_to_fall_back_on() -> None:
    cases = {case.label: case for case in shape_cases([IMAGE])}
    assert cases["larger"].dims["height"] != cases["larger"].dims["width"]
    assert all(size >= 224 for name, size in cases["usual"].dims.items() if name != "batch")
    assert [case["height"] for case in cases["smallest"].alternatives] == [32, 32, 32, 32, 32, 64]
    assert cases["smallest"].dims["batch"] == 1 and cases["smallest"].dims["height"] == 32


def test_given_dims_stay() -> None:
    cases = list(shape_cases([IDS], {"seq": 8}))
    assert {case.dims["seq"] for case in cases} == {8}
    assert [case.label for case in cases] == ["usual", "smallest", "larger"]
    assert [case.label for case in shape_cases([parse_spec("x:float32[2,3]")])] == ["fixed"]


def test_sizes_differ_from_each_other() -> None:
    sizes = larger_sizes([parse_spec("x:float32[batch,time,channels]")])
    assert len(set(sizes.values())) == 3


def test_merging_fixes_what_the_candidate_fixed_everywhere() -> None:
    mask = parse_spec("mask:int64[batch,seq]")
    merged = merge_specs([IDS, mask], [parse_spec("ids:int64[1,seq]"), parse_spec("mask:int64[1,seq]")])
    assert [spec.shape for spec in merged] == [(1, "seq"), (1, "seq")]
    assert merged[0].values == (0, 9)


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ("other:int64[batch,seq]", "different inputs"),
        ("ids:int64[batch]", "different shapes"),
    ],
)
def test_models_that_cannot_be_fed_alike_are_refused(candidate: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        merge_specs([IDS], [parse_spec(candidate)])


def test_an_unknown_dim_is_refused() -> None:
    with pytest.raises(UsageError, match="no such dim"):
        list(shape_cases([IDS], {"sequence": 3}))
