"""Headline, names, small plots and further columns."""

from __future__ import annotations

import csv
import io

import msgspec
import numpy as np
import pytest

from tests.report.full import full_report
from toolkit.profiler.records import AccuracyRecord, EnergyRecord, ProfileReport
from toolkit.report.costs import COSTS, TAILS, cells, energy, present, sources
from toolkit.report.formats import FORMATS
from toolkit.report.headline import headline, tally
from toolkit.report.names import families, words
from toolkit.report.quality import lower_is_better, quality
from toolkit.report.sparklines import sparkline


@pytest.fixture(scope="module")
def full() -> ProfileReport:
    return full_report()


def test_the_headline_names_the_fastest_and_its_baseline(full: ProfileReport, report: ProfileReport) -> None:
    text = headline(full)
    assert text.startswith("openvino-int8-throughput runs resnet50.onnx in 5.65 ms, 5.91 × as fast as zoo:resnet50 on")
    assert text.endswith("with accuracy 0.8142 [0.7972, 0.8302] (there 0.8175).")
    assert "2.10 × as fast as cpu-fp32 [2.04, 2.15]." in headline(report)


def test_nothing_is_claimed_that_was_not_judged(report: ProfileReport) -> None:
    unjudged = [msgspec.structs.replace(item, ratio_ci=None) for item in report.comparisons]
    text = headline(msgspec.structs.replace(report, comparisons=unjudged))
    assert text == "No other was found faster than bert.onnx on cpu-fp32, which takes 20.7 ms [20.3, 21.3]."
    alone = msgspec.structs.replace(report, cases=report.cases[:1], comparisons=[])
    assert headline(alone) == "cpu-fp32 runs bert.onnx in 20.7 ms [20.3, 21.3]."
    assert tally(alone) == ""
    assert headline(msgspec.structs.replace(report, cases=[], comparisons=[])) == "Nothing was measured."


def test_the_tally_counts_all(report: ProfileReport) -> None:
    expected = "Of 2 comparisons: 1 faster, 1 no significant difference. 1 case failed. 1 target is not available on"
    assert tally(report).startswith(expected)


def test_words_are_no_more_than_it_takes(full: ProfileReport) -> None:
    assert words(full.cases[:1]) == {full.cases[0].id: "torch-eager"}
    assert words(full.cases[:2])[full.cases[1].id] == "cpu-fp32"
    twin = msgspec.structs.replace(full.cases[1], id="twin", model="twin.onnx")
    assert words([full.cases[1], twin])["twin"] == "cpu-fp32, twin.onnx"
    loaded = msgspec.structs.replace(full.cases[1], id="loaded", scenario="multi-stream", streams=4)
    assert words([full.cases[1], loaded])["loaded"] == "cpu-fp32, multi-stream × 4"


def test_families_are_what_can_be_compared(full: ProfileReport) -> None:
    first, rest = families(full)
    assert (first.title, first.comparable, len(first.cases)) == ("2 models, batch 1", True, 6)
    assert (rest.title, rest.comparable, len(rest.cases)) == ("resnet50.onnx, several sizes", False, 8)


def test_a_sparkline_is_as_high_as_there_are_calls_and_shows_a_lone_one() -> None:
    edges = np.geomspace(1, 1000, 11)
    assert sparkline([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 900], edges) == "▇        ▃"
    assert sparkline([], edges) == " " * 10


def test_the_terminal_has_it_all_in_eighty_columns(full: ProfileReport) -> None:
    text = FORMATS["table"](full)
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("jitter", "samples", "quality", "energy", "price/1M", "memory", "▇", "Energy from machine.toml."):
        assert expected in text


def test_columns_appear_where_a_case_has_them(report: ProfileReport, full: ProfileReport) -> None:
    assert [column.head for column in present(report.measured, COSTS)] == [
        "Import", "Load", "First inference", "Peak memory",
    ]  # fmt: skip
    assert [column.head for column in present(full.measured, TAILS)] == ["p95", "Jitter", "Throughput"]
    bare = msgspec.structs.replace(full.cases[0], energy=EnergyRecord(reason="no counter"))
    assert "–" in cells(bare, COSTS)
    assert sources(msgspec.structs.replace(full, cases=[bare])) == ["Energy is not known: no counter."]
    assert energy(msgspec.structs.replace(bare, energy=EnergyRecord(joules=2.5))) == "2.50 J"


def test_markdown_has_costs_sweeps_and_operators(full: ProfileReport) -> None:
    text = FORMATS["markdown"](full)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.replace("\\|", "").count("|") for line in lines}) == 1 for lines in tables)
    for expected in (
        "**openvino-int8-throughput runs", "### Beyond typical latency", "### resnet50.onnx on cpu-fp32 over batch",
        "time ∝ batch^0.97 [0.95, 0.99]", "### Where the time of `resnet50.onnx@cpu-fp32[batch=1]` goes",
        "| FusedConv | `/layer1/0/conv0/Conv`, `/layer1/0/relu0/Relu` | 21.0% |", "| unexplained |",
    ):  # fmt: skip
        assert expected in text


def test_csv_has_the_new_columns_behind_the_old(full: ProfileReport) -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](full))))
    row = rows[1]
    assert (row["metric"], row["quality"], row["currency"], row["energy_source"]) == (
        "accuracy", "0.8175", "EUR", "machine.toml",
    )  # fmt: skip
    assert (row["scenario"], row["streams"], row["explained"], row["slowest_operator"]) == (
        "single-stream", "1", "0.912", "FusedConv_0",
    )  # fmt: skip
    assert rows[5]["joules_per_sample"] == ""
    assert list(row).index("p95_ns") > list(row).index("warnings")


def test_quality_in_words() -> None:
    record = AccuracyRecord(metric="top_5_accuracy", value=0.796, interval=(0.779, 0.812), samples=100)
    assert quality(record) == "top 5 accuracy 0.7960 [0.7790, 0.8120]"
    assert quality(msgspec.structs.replace(record, metric="perplexity", value=1234.5, interval=None)) == (
        "perplexity 1234"
    )  # fmt: skip
    assert [lower_is_better(name) for name in ("accuracy", "perplexity", "rmse", "psnr_db", "token_accuracy")] == [
        False, True, True, False, False,
    ]  # fmt: skip
