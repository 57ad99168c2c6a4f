"""Axes, lettering and the Pareto front."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.full import case, full_report
from toolkit.profiler.records import OperatorRecord
from toolkit.report.kinds import KINDS, kind
from toolkit.report.page.context import Context
from toolkit.report.page.frame import NARROW, WIDE, Axis, Frame, Lettering, wordings
from toolkit.report.page.roofline import dots
from toolkit.report.page.scales import CHARACTER, Scale, padded
from toolkit.report.page.svg import SHAPES, element, mark
from toolkit.report.page.tradeoffs import Point, front
from toolkit.report.page.units import clock, plain, prefixed


def test_a_scale_puts_equal_factors_at_equal_distances() -> None:
    scale = Scale(1, 100, 0, 200)
    assert [scale(value) for value in (1, 10, 100)] == [0, 100, 200]
    assert Scale(0, 10, 100, 0, logarithmic=False)(2.5) == 75


@given(st.floats(1e-3, 1e12), st.floats(1.02, 1e9), st.booleans(), st.sampled_from([NARROW, WIDE]))
def test_names_of_ticks_do_not_overlap(low: float, factor: float, logarithmic: bool, width: int) -> None:
    scale = Scale(low, low * factor, 50, width, logarithmic)
    ticks = scale.ticks(clock)
    places = [(scale(value), len(clock(value)) * CHARACTER) for value in ticks]
    assert len(ticks) >= 2
    assert all(low * (1 - 1e-9) <= value <= low * factor * (1 + 1e-9) for value in ticks)
    if len(ticks) > 2:
        assert all(b - a >= (wa + wb) / 2 for (a, wa), (b, wb) in itertools.pairwise(places))


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [(1e6, 1e7, ["1 ms", "2 ms", "5 ms", "10 ms"]), (1e3, 1e9, ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms"])],
)
def test_ticks_are_round(low: float, high: float, names: list[str]) -> None:
    found = [clock(value) for value in Scale(low, high, 0, 300).ticks(clock)]
    assert [name for name in names if name in found] == names[: len(found)] or set(names) <= set(found)


def test_a_narrow_range_is_named_too() -> None:
    ticks = Scale(39.2e6, 44.1e6, 0, 300).ticks(clock)
    assert len(ticks) >= 3
    assert "40 ms" in map(clock, ticks)


def test_padding_leaves_room_even_for_one_value() -> None:
    low, high = padded([5.0], 0.1)
    assert low < 5 < high
    low, high = padded([0.0], 0.1, logarithmic=False)
    assert low < 0 < high


def test_units() -> None:
    assert [clock(value) for value in (1e6, 2.5e6, 1e9, 500)] == ["1 ms", "2.5 ms", "1 s", "500 ns"]
    assert [prefixed(value, "B") for value in (2e7, 1e9, 12)] == ["20 MB", "1 GB", "12 B"]
    assert [plain(value) for value in (0.8, 1e6, 16)] == ["0.8", "1000000", "16"]


def test_texts_stand_clear_of_points_and_of_each_other() -> None:
    frame = Frame(NARROW, 300, Axis("x", 1, 10, plain, False), Axis("y", 1, 10, plain, False))
    places = [(150.0 + 12 * index, 120.0 + 3 * index) for index in range(8)]
    lettering = Lettering(frame, places)
    texts = [lettering.beside(x, y, wordings(n, f"target-{n}")) for n, (x, y) in enumerate(places)]
    boxes = []
    for text in filter(None, texts):
        found = re.match(r'<text x="([\d.]+)" y="([\d.]+)"(?: text-anchor="(\w+)")? class="label">(.*)</text>', text)
        assert found
        width = len(found[4]) * CHARACTER
        left = float(found[1]) - {"middle": width / 2, "end": width}.get(found[3], 0.0)
        boxes.append((left, float(found[2]) - 10, left + width, float(found[2]) + 3))
    assert len(boxes) >= 4
    boxes += [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for one, other in itertools.combinations(boxes[: len(boxes) - len(places)], 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert all(frame.left <= box[0] and box[2] <= frame.width for box in boxes)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    record = case(0)
    points = [Point(record, *pair) for pair in ((1, 0.7), (2, 0.9), (3, 0.8), (4, 0.9), (2, 0.95))]
    assert [(p.latency, p.value) for p in front(points, lower=False)] == [(1, 0.7), (2, 0.95)]
    assert [(p.latency, p.value) for p in front(points, lower=True)] == [(1, 0.7)]


def test_kinds_are_told_by_name_and_have_a_colour_each() -> None:
    def named(operator: str, *nodes: str) -> str:
        return kind(OperatorRecord(name="n", operator=operator, operators=nodes, time_ns=1, share=0.1))

    assert len(KINDS) == len(SHAPES)
    assert named("FusedConv", "Conv", "Relu") == named("QLinearConv") == named("Convolution") == "convolution"
    assert named("FullyConnected", "MatMul", "Add") == named("FusedMatMul") == "matrix product"
    assert named("MultiHeadAttention", "MatMul", "Softmax", "MatMul") == named("SDPA") == "attention"
    assert named("LSTM") == "recurrent" and named("LayerNormalization") == named("Softmax") == "normalization"
    assert named("Convert") == named("Reorder") == named("Transpose") == "data movement"
    assert named("MaxPool") == named("ReduceMean") == "pooling"
    assert named("Add") == named("SomethingNew") == "elementwise"


def test_dots_are_what_operators_achieve() -> None:
    profiled = next(found for found in full_report().cases if found.operators)
    assert profiled.operators
    found = dots(profiled)
    assert len(found) == sum(bool(item.flops) for item in profiled.operators.operators)
    record = found[0].record
    assert record.flops and record.bytes
    assert found[0].intensity == record.flops / record.bytes
    assert found[0].rate == pytest.approx(record.flops / (record.time_ns / 1e9))


def test_markup() -> None:
    assert element("a", "x", class_="b", font_size=1.0, none=None) == '<a class="b" font-size="1">x</a>'
    assert element("a", title='"<') == '<a title="&quot;&lt;"></a>'
    drawn = [mark(series, 10, 10) for series in range(len(SHAPES))]
    assert len(set(drawn)) == len(SHAPES)


def test_series_stay_with_their_target() -> None:
    report = full_report()
    context = Context.of(report)
    assert len({context.series(found) for found in report.measured}) == 6
    assert [context.numbers[found.id] for found in report.measured] == list(range(1, len(report.measured) + 1))
