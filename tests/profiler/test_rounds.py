from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.profiler.recorded import MS, case
from toolkit.profiler.rounds import log_medians


@pytest.mark.parametrize(
    ("changes", "time_ns"),
    [
        ({}, 2 * MS),
        ({"batch": 8}, 2 * MS),
        ({"scenario": "multi-stream", "streams": 4, "batch": 8}, 14 * MS / 4 / 4),
        ({"scenario": "offline", "batch": 8}, 14 * MS / 4 / 8),
    ],
    ids=["one stream", "a batch", "several streams", "offline"],
)
def test_a_block_is_its_median_and_under_load_its_share_of_the_wall_time(
    changes: dict[str, Any], time_ns: float
) -> None:
    block = [MS, 2 * MS, 2 * MS, 9 * MS]  # one call waited for the others
    record = case(processes=1, rounds=1, samples_ns=block, **changes)
    assert log_medians(record) == {0: [pytest.approx(np.log(time_ns))]}
