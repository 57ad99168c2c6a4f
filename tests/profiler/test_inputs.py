"""Sizes and arrays that cases are fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import NotApplicable
from toolkit.profiler.inputs import SETS, Sizes, random_feeds, read_feeds, shapes, sizes, write_feeds
from toolkit.tensors import TensorSpec

TEXT = (TensorSpec("ids", "int64", ("batch", "seq"), (0, 99)), TensorSpec("mask", "int64", ("batch", "seq")))


def test_sizes_are_those_wanted_and_the_rest_is_guessed() -> None:
    assert sizes(TEXT, 8, {"seq": 64, "width": 3}) == Sizes(8, {"seq": 64}, {"batch": 8, "seq": 64}, ())
    assert sizes(TEXT, None, {}) == Sizes(1, {"seq": 16}, {"batch": 1, "seq": 16}, ("seq",))
    assert sizes(TEXT, None, {"batch": 4, "seq": 2}).batch == 4


def test_a_fixed_batch_can_only_be_asked_for_at_its_size() -> None:
    fixed = (TensorSpec("x", "float32", (4, "seq")),)
    assert sizes(fixed, None, {}) == sizes(fixed, 4, {}) == Sizes(4, {"seq": 16}, {"seq": 16}, ("seq",))
    with pytest.raises(NotApplicable, match="the batch is fixed at 4"):
        sizes(fixed, 1, {})


def test_a_model_without_inputs_has_a_batch_of_one() -> None:
    assert sizes((), None, {}).batch == 1
    assert sizes((TensorSpec("x", "float32", ()),), None, {}).batch == 1


def test_feeds_rotate_and_are_the_same_in_every_worker() -> None:
    feeds = random_feeds(TEXT, {"batch": 2, "seq": 5}, seed=3)
    assert len(feeds) == SETS
    assert len({feed["ids"].tobytes() for feed in feeds}) == SETS
    again = random_feeds(TEXT, {"batch": 2, "seq": 5}, seed=3)
    assert all(np.array_equal(a["ids"], b["ids"]) for a, b in zip(feeds, again, strict=True))
    assert shapes(feeds[0]) == [[2, 5], [2, 5]]
    assert not np.array_equal(random_feeds(TEXT, {"batch": 2, "seq": 5}, seed=4)[0]["ids"], feeds[0]["ids"])


def test_feeds_survive_the_way_through_a_file(tmp_path: Path) -> None:
    feeds = [{"a/b": np.full((2, 3), index, np.float16), "ids": np.arange(index + 1)} for index in range(3)]
    write_feeds(tmp_path / "feeds.npz", feeds)
    found = read_feeds(tmp_path / "feeds.npz")
    assert len(found) == 3
    for feed, back in zip(feeds, found, strict=True):
        assert feed.keys() == back.keys()
        assert all(np.array_equal(feed[name], back[name]) and feed[name].dtype == back[name].dtype for name in feed)
