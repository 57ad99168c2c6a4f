"""The demo's table, from rows that are given."""

from __future__ import annotations

import pytest

from toolkit.cli.demo import table
from toolkit.cli.demo_chain import Demo, Row

FRESH = {"bundle": "cnn.bundle", "provider": "cpu", "right": 9, "images": 10, "first": ["1"], "truth": [1]}


def row(target: str, ratio_ci: tuple[float, float] | None) -> Row:
    return Row(
        model="cnn", target=target, precision="float32", accuracy=0.99, size_bytes=1000, p50_ns=1e5, p50_ci=(9e4, 2e5),
        p99_ns=None, p99_withheld="", ratio=0.9, ratio_ci=ratio_ci, verdict="no significant difference", kept=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratio_ci", "said"), [((0.5, 1.3), True), ((0.8, 1.0), False), ((0.5, 1.0), False), (None, False)]
)
def test_a_ratio_that_is_hardly_known_is_to_be_read_with_care(ratio_ci: tuple[float, float] | None, said: bool) -> None:
    rows = (row("torch-eager", None), row("openvino", ratio_ci))
    text = table(Demo(rows, {"cnn": 0.99}, {}, {"cnn": "cnn.bundle"}, FRESH, "report.html"))
    assert ("read with care: × eager is uncertain by more than a factor of 2 for cnn on openvino" in flat(text)) == said
    assert max(map(len, text.splitlines())) <= 80


def flat(text: str) -> str:
    return " ".join(text.split())


def test_long_names_give_way_to_numbers_with_many_digits() -> None:
    wide = Row(
        model="transformer", target="openvino", precision="int8", accuracy=1.0, size_bytes=123_400, p50_ns=75_900,
        p50_ci=(7e4, 8e4), p99_ns=75_900, p99_withheld="", ratio=0.0712, ratio_ci=(0.0655, 0.0787), verdict="faster",
        kept=True,
    )  # fmt: skip
    text = table(Demo((wide, wide), {"cnn": 0.99}, {}, {"cnn": "cnn.bundle"}, FRESH, "report.html"))
    assert max(map(len, text.splitlines())) <= 80
    assert "0.071 [0.066, 0.079]" in text
