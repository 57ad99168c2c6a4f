"""The HTML page: whole, in need of nothing, every part where there is something for it, and open to everybody."""

from __future__ import annotations

import re
from importlib.resources import files

import msgspec
import pytest

from tests.report.full import full_report
from tests.report.parsed import Page
from toolkit.profiler.records import ProfileReport
from toolkit.report.html import as_html
from toolkit.report.page.svg import SHAPES


@pytest.fixture(scope="module")
def full() -> ProfileReport:
    return full_report()


@pytest.fixture(scope="module")
def page(full: ProfileReport) -> Page:
    return Page(as_html(full))


def sections(page: Page) -> list[str | None]:
    return [attributes["id"] for attributes in page.all("section")]


def test_it_needs_nothing_else(full: ProfileReport, page: Page) -> None:
    text = as_html(full)
    assert page.references == []
    assert page.all("script") == page.all("link") == page.all("img") == []
    assert "url(" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text and "@media print" in text


def test_every_part_is_there_and_linked(page: Page) -> None:
    expected = [
        "latency", "distributions", "trade-offs", "sweeps", "roofline", "operators", "costs", "proof", "missing",
        "environment",
    ]  # fmt: skip
    assert sections(page) == expected
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{name}" for name in expected]


def test_parts_without_content_are_left_out(report: ProfileReport) -> None:
    assert sections(Page(as_html(report))) == ["latency", "distributions", "costs", "proof", "missing", "environment"]


def test_what_was_found_is_on_it(page: Page) -> None:
    for text in (
        "× as fast as zoo:resnet50 on torch-eager", "3 faster, 1 no significant difference, 1 slower",
        "2 targets are not available on this machine", "other processes kept 0.31 cores busy meanwhile",
        "/layer1/0/conv0/Conv", "unexplained", "3 others", "3 nodes that the engine folded away", "time ∝ batch^0.97",
        "float32 146 GOP/s", "memory 25 GB/s", "15% of calls took more than 1.5 times the median", "p99.9 takes 6636",
        "Energy from machine.toml", "Energy is not known: RAPL cannot be read here", "EUR", "accuracy 0.8142",
        "onnxruntime has no CUDA provider", "CPUExecutionProvider 122", "0" * 63 + "1",
    ):  # fmt: skip
        assert text in page.text, text


def test_every_chart_is_drawn_for_a_phone_and_for_a_screen(page: Page) -> None:
    kinds = [attributes.get("class") for attributes in page.all("div")]
    assert kinds.count("narrow") == kinds.count("wide") == len(page.all("figure")) == 9


def test_images_say_what_they_show_and_tables_name_rows_and_columns(page: Page) -> None:
    for attributes in page.all("svg"):
        told = attributes.get("aria-label") or ""
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and len(told) > 20)
    assert {attributes["scope"] for attributes in page.all("th")} == {"row", "col"}
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.all("html") == [{"lang": "en"}]
    names = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(names) == len(set(names))
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(names)


def test_series_differ_in_shape_as_well_as_in_colour() -> None:
    style = (files("toolkit.report.page") / "page.css").read_text(encoding="utf-8")
    assert len(set(SHAPES)) == len(SHAPES)
    assert all(f".s{number} {{ fill" in style for number in range(len(SHAPES)))


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``. Source: WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_enough(scheme: int) -> None:
    """WCAG AA: 4.5 for text, 3 for what charts are drawn with."""
    style = (files("toolkit.report.page") / "page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    grounds = (colours["page"], colours["panel"])
    for name in ("text", "dim", "good", "bad", "link"):
        assert min(contrast(colours[name], ground) for ground in grounds) >= 4.5, name
    assert contrast(colours["on-warn"], colours["warn"]) >= 4.5
    for name in ("interval", "tick", *(f"s{number}" for number in range(len(SHAPES)))):
        assert min(contrast(colours[name], ground) for ground in grounds) >= 3, name


def test_samples_are_counted_not_copied(full: ProfileReport) -> None:
    many = [msgspec.structs.replace(case, samples_ns=case.samples_ns * 20) for case in full.cases]
    once, often = len(as_html(full)), len(as_html(msgspec.structs.replace(full, cases=many)))
    assert once < 250_000
    assert often < once * 1.2


def test_names_from_outside_are_escaped(full: ProfileReport) -> None:
    evil = "<script>alert(1)</script>\"'&"
    cases = [msgspec.structs.replace(case, model=evil, target=evil, warnings=[evil]) for case in full.cases]
    sweeps = [msgspec.structs.replace(sweep, model=evil, target=evil, variable=evil) for sweep in full.sweeps]
    page = Page(as_html(msgspec.structs.replace(full, cases=cases, sweeps=sweeps, warnings=[evil])))
    assert page.all("script") == []
    assert evil in page.text


def test_odd_reports_are_pages_too(full: ProfileReport) -> None:
    """One sample, samples that are all alike, no interval, an operator without time, a sweep of one point."""
    cases = list(full.cases)
    assert cases[1].latency_ns and cases[1].operators
    bare = msgspec.structs.replace(cases[1].latency_ns, p50_ci=None, jitter=None, p90=None)
    still = [msgspec.structs.replace(item, time_ns=0.0, share=0.0) for item in cases[1].operators.operators]
    cases[0] = msgspec.structs.replace(cases[0], samples_ns=[5])
    cases[1] = msgspec.structs.replace(
        cases[1], samples_ns=[7] * 50, latency_ns=bare, accuracy=None, energy=None, price=None,
        operators=msgspec.structs.replace(cases[1].operators, operators=still),
    )  # fmt: skip
    sweeps = [msgspec.structs.replace(full.sweeps[0], points=full.sweeps[0].points[:1], exponent=None)]
    page = Page(as_html(msgspec.structs.replace(full, cases=cases, sweeps=sweeps)))
    assert "sweeps" not in sections(page)
    empty = msgspec.structs.replace(full, cases=[], comparisons=[], sweeps=[], peaks=[], interrupted=True)
    page = Page(as_html(empty))
    assert "Nothing was measured." in page.text and "interrupted" in page.text
