"""Groups that fit into memory."""

from __future__ import annotations

from toolkit.profiler.grouping import COPIES_OF_THE_FILE, USABLE_SHARE, WORKER_BYTES, groups

GB = 10**9


def test_what_fits_stays_together() -> None:
    assert groups([GB, GB, GB], [0], 64 * GB) == [[0, 1, 2]]


def test_unknown_memory_is_no_reason_to_split() -> None:
    assert groups([100 * GB] * 2, [0], None) == [[0, 1]]


def test_no_cases_make_no_groups() -> None:
    assert groups([], [], 8 * GB) == []


def test_large_models_are_split_and_the_baseline_is_in_every_group() -> None:
    found = groups([GB] * 6, [2], 16 * GB)
    assert len(found) > 1
    assert all(2 in group for group in found)
    assert sorted(index for group in found for index in group if index != 2) == [0, 1, 3, 4, 5]
    for group in found:
        assert len(group) * (WORKER_BYTES + COPIES_OF_THE_FILE * GB) <= USABLE_SHARE * 16 * GB


def test_a_model_too_large_for_the_guess_is_tried_all_the_same() -> None:
    assert groups([50 * GB, 50 * GB], [0], 8 * GB) == [[0, 1]]
    assert groups([50 * GB], [0], 8 * GB) == [[0]]
