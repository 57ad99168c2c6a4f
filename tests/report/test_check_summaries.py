"""The answer of a check for CI systems: names that hurt, and every answer there is."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from toolkit.profiler.judging import Checked, CheckReport
from toolkit.report.check_summaries import github_annotations, github_summary, junit
from toolkit.report.comparison import check_table

CASES = [
    Checked(old="a@cpu", new="fine.onnx@cpu", answer="passed", ratio=1.01, ratio_ci=(1.0, 1.02), p50_ns=(10**6, 10**6)),
    Checked(old="b@cpu", new="slow|<b>.onnx@cpu", answer="slower", ratio=1.5, ratio_ci=(1.4, 1.6), p50_ns=(2, 3)),
    Checked(old="c@cpu", new="who,knows:50%\n.onnx@cpu", answer="inconclusive", ratio=1.04, ratio_ci=(0.9, 1.2),
            p50_ns=(10**6, 10**6)),
    Checked(old="d@cpu", new="", answer="not measured", reason="it crashed: \x00\x1b[31m"),
]  # fmt: skip


@pytest.fixture
def found() -> CheckReport:
    return CheckReport(
        answer="slower", limit=1.05, paired=True, spent_s=30, cases=CASES, warnings=["0.5 cores were busy | so what"]
    )


@pytest.mark.parametrize(("tolerated", "failures", "skipped"), [(True, "1", "1"), (False, "2", "0")])
def test_junit_counts_and_parses(found: CheckReport, tolerated: bool, failures: str, skipped: str) -> None:
    suite = ElementTree.fromstring(junit(found, tolerate_doubt=tolerated)).find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", failures, "1", skipped]
    cases = suite.findall("testcase")
    assert [item.get("name") for item in cases][1::2] == ["slow|<b>.onnx@cpu", "d@cpu"]
    error = cases[3].find("error")
    assert error is not None and "it crashed" in str(error.get("message"))
    assert len(suite.findall("testcase/failure")) == int(failures)


def test_markdown_keeps_its_columns(found: CheckReport) -> None:
    rows = [line for line in github_summary(found).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(CASES)
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert "slow\\|&lt;b>.onnx@cpu" in rows[3] and "**slower**" in rows[3]


def test_annotations_are_one_line_each_and_escaped(found: CheckReport) -> None:
    lines = github_annotations(found, tolerate_doubt=True)
    assert [line.split(" ", 1)[0] for line in lines] == ["::notice", "::error", "::warning", "::error"]
    assert not any("\n" in line for line in lines)
    assert "title=toolkit check%3A who%2Cknows%3A50%25%0A.onnx@cpu::inconclusive" in lines[2]
    assert github_annotations(found, tolerate_doubt=False)[2].startswith("::error ")


def test_the_table_fits_a_terminal(found: CheckReport) -> None:
    text = check_table(found)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "slower: limit 1.05, 30 s of measuring in one interleaved run" in text
