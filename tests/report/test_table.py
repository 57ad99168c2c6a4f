"""The table for terminals."""

from __future__ import annotations

import msgspec
import pytest

from toolkit.profiler.records import ProfileReport
from toolkit.report.columns import bar, columns, shortened
from toolkit.report.numbers import digits, duration, duration_with_interval, size
from toolkit.report.table import table


def test_it_fits_eighty_columns(report: ProfileReport) -> None:
    assert max(len(line) for line in table(report).splitlines()) <= 80


def test_numbers_intervals_and_verdicts_are_in_the_line_of_their_target(report: ProfileReport) -> None:
    lines = table(report).splitlines()
    (faster,) = [line for line in lines if "9.87 ms [" in line]
    assert faster.split(maxsplit=1)[0] == "openvino…-long-name"
    assert " ".join(faster.split()[1:]) == "9.87 ms [9.67, 10.2] 11.8 ms – 0.48 [0.47, 0.49] faster"
    (equal,) = [line for line in lines if "20.6 ms [" in line]
    assert " ".join(equal.split()[-5:]) == "1.00 [0.98, 1.01] no diff"
    (baseline,) = [line for line in lines if "20.7 ms [" in line]
    assert baseline.endswith("baseline")


def test_doubts_and_what_is_missing_stand_under_the_table(report: ProfileReport) -> None:
    text = " ".join(table(report).split())
    assert "this run: other processes kept 0.50 cores busy meanwhile" in text
    assert "bert.onnx@cpu-fp32: no p99: 512 samples, 150 more are needed; noisy (the median" in text
    assert "Not available here: cuda-fp32: no NVIDIA driver; install one" in text
    assert "Not applicable: bert.onnx@cpu-int8: the file is float32; it takes int8" in text
    assert "Failed: bad|<b>.onnx@cpu: its worker was killed by SIGSEGV" in text
    assert "time/base: time over that of bert.onnx@cpu-fp32; below 1 is faster." in text


def test_too_few_rounds_are_not_passed_off_as_no_difference(report: ProfileReport) -> None:
    unjudged = msgspec.structs.replace(report.comparisons[0], ratio_ci=None, rounds=5)
    text = table(msgspec.structs.replace(report, comparisons=[unjudged]))
    (line,) = [line for line in text.splitlines() if "9.87 ms [" in line]
    assert " ".join(line.split()[-3:]) == "0.48 too few"
    assert "no verdict: 5 rounds with the baseline, 8 are needed" in " ".join(text.split())


def test_bars_are_as_long_as_the_medians(report: ProfileReport) -> None:
    bars = [line for line in table(report).splitlines() if "█" in line]
    cells = [line.count("█") for line in bars]
    assert len(bars) == 3
    assert cells[0] == 40
    assert cells[1] == int(40 * 9.87 / 20.7)


def test_nothing_measured_and_interruption_are_said(report: ProfileReport) -> None:
    none = msgspec.structs.replace(report, cases=report.cases[3:], comparisons=[], warnings=[], interrupted=True)
    text = table(none)
    assert text.startswith("Nothing was measured.")
    assert "Interrupted" in text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0.00 ns"), (999, "999 ns"), (1234, "1.23 µs"), (56_789, "56.8 µs"), (2.5e9, "2.50 s"), (7.2e12, "7200 s")],
)
def test_durations(nanoseconds: float, text: str) -> None:
    assert duration(nanoseconds) == text


def test_an_interval_is_in_the_unit_of_its_number() -> None:
    assert duration_with_interval(1_500_000, (900_000, 12_000_000)) == "1.50 ms [0.90, 12.0]"
    assert [digits(value) for value in (99.96, 9.996, 0.999, 0.0423)] == ["100", "10.0", "1.00", "0.042"]
    assert size(104_300_000) == "104 MB"


def test_columns_give_way_in_the_first() -> None:
    rows = columns([("a" * 100, "b" * 30), ("short", "c")])
    assert len(rows[0]) == 80 and "…" in rows[0]
    assert rows[1].split() == ["short", "c"]
    assert columns([]) == []
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("模型模型模型模型", 9) == "模型…模型"  # wide characters take two cells each
    assert columns([("模型", "a"), ("x", "b")]) == ["模型   a", "x      b"]
    assert shortened("a\nb\x1b[31m", 80) == "a\\nb\\x1b[31m"
    assert (bar(0, 10), bar(0.5, 10), bar(2, 10), bar(0.0125, 10)) == ("", "█████", "██████████", "▏")
