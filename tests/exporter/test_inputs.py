from __future__ import annotations

import numpy as np
import pytest
import torch

from toolkit.errors import UsageError
from toolkit.exporter.inputs import input_specs
from toolkit.exporter.values import corners, usual
from toolkit.tensors import TensorSpec, parse_spec


def test_texts_specs_and_tensors_become_specs() -> None:
    spec = parse_spec("ids:int64[batch,seq]=0..9")
    assert input_specs(["ids:int64[batch,seq]=0..9"]) == (spec,)
    assert input_specs(spec) == (spec,)
    assert input_specs(torch.zeros(2, 3), ["x"]) == (TensorSpec("x", "float32", ("batch", 3)),)


def test_example_tensors_share_a_batch_where_they_agree() -> None:
    found = input_specs({"a": torch.zeros(2, 3), "b": torch.tensor([[4], [9]])})
    assert [str(item) for item in found] == ["a:float32[batch,3]", "b:int64[batch,1]=4..9"]
    assert [item.shape for item in input_specs([torch.zeros(2, 3), np.zeros((5,), np.float16)])] == [(2, 3), (5,)]


@pytest.mark.parametrize("inputs", [[3], [], ["x:float32[1]", "x:float32[2]"]])
def test_what_describes_no_inputs_is_refused(inputs: object) -> None:
    with pytest.raises(UsageError):
        input_specs(inputs)


def test_masks_pad_at_the_end_and_never_a_whole_row() -> None:
    mask = usual([parse_spec("attention_mask:int64[batch,seq]=0..1")], {"batch": 5, "seq": 9}, 0)["attention_mask"]
    assert mask[:, 0].all() and not mask.all()
    assert (np.diff(mask, axis=1) <= 0).all()
    assert len(set(mask.sum(1))) > 1


def test_corners_reach_far_small_constant_and_extreme_values() -> None:
    specs = [parse_spec("x:float32[batch,4]"), parse_spec("ids:int64[batch]=3..7"), parse_spec("mask:int64[batch,4]")]
    found = dict(corners(specs, {"batch": 2}, 0))
    assert set(found) == {"×30", "×0.001", "negative", "zeros", "ones", "lowest", "highest", "unmasked"}
    assert np.abs(found["×30"]["x"]).max() > 20 and (found["negative"]["x"] <= 0).all()
    assert found["lowest"]["ids"].tolist() == [3, 3] and found["highest"]["ids"].tolist() == [7, 7]
    assert found["unmasked"]["mask"].all()
    assert all(feeds["x"].dtype == np.float32 for feeds in found.values())
