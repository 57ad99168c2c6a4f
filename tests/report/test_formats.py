"""JSON, CSV, Markdown and HTML of one report."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest

from tests.report.parsed import Page
from toolkit.errors import UsageError
from toolkit.profiler.records import ProfileReport
from toolkit.report.formats import FORMATS, SUFFIXES, format_of
from toolkit.report.markdown import code


def test_json_reads_back_as_the_same_report(report: ProfileReport) -> None:
    text = FORMATS["json"](report)
    assert msgspec.json.decode(text, type=ProfileReport) == report
    assert json.loads(text)["schema_version"] == 2


def test_csv_has_a_line_per_case(report: ProfileReport) -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](report))))
    assert len(rows) == len(report.cases)
    assert (rows[1]["p50_ns"], rows[1]["ratio"], rows[1]["verdict"]) == ("9870000", "0.4768", "faster")
    assert (rows[0]["ratio"], rows[0]["dims"], rows[0]["samples"]) == ("", "seq=64", "512")
    assert (rows[3]["status"], rows[3]["p50_ns"]) == ("unavailable", "")


def test_markdown_tables_are_whole(report: ProfileReport) -> None:
    text = FORMATS["markdown"](report)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {7}
    assert "### bert.onnx  float32  batch 1, seq 64" in text
    assert "Baseline: `bert.onnx@cpu-fp32`" in text
    assert "**Not available here**" in text


def test_a_backtick_in_a_name_does_not_end_its_code_span(report: ProfileReport) -> None:
    assert [code("a.onnx"), code("a`b"), code("``"), code("a\nb")] == ["`a.onnx`", "`` a`b ``", "``` `` ```", "`a b`"]
    named = msgspec.structs.replace(report.cases[3], target="odd`name")
    text = FORMATS["markdown"](msgspec.structs.replace(report, cases=[*report.cases[:3], named]))
    assert "`` odd`name ``: no NVIDIA driver" in text


def test_html_shows_what_the_table_shows(report: ProfileReport) -> None:
    page = Page(FORMATS["html"](report))
    for text in (
        "9.87 ms [9.67, 10.2]", "0.48 [0.47, 0.49]", "faster", "no significant difference", "twin & co.onnx",
        "no NVIDIA driver; install one", "CPUExecutionProvider 17", report.environment.fingerprint,
        "bad|<b>.onnx@cpu", "other processes kept 0.50 cores busy meanwhile",
    ):  # fmt: skip
        assert text in page.text


def test_a_report_without_numbers_is_a_page_too(report: ProfileReport) -> None:
    page = Page(
        FORMATS["html"](msgspec.structs.replace(report, cases=report.cases[3:], comparisons=[], interrupted=True))
    )
    assert "Nothing was measured." in page.text and "interrupted" in page.text


def test_suffixes_name_formats() -> None:
    assert set(SUFFIXES.values()) == set(FORMATS)
    assert format_of(Path("REPORT.HTML")) == "html"
    with pytest.raises(UsageError, match="the suffix names no format"):
        format_of(Path("report.pdf"))
