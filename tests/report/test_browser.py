"""The page in a real browser: wide and narrow, light and dark. Skipped where there is no Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import NAMES, Browser, find
from tests.report.full import full_report
from toolkit.report.html import as_html

CHROMIUM = find()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"no headless browser: none of {', '.join(NAMES)}")
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 29)"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(as_html(full_report()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1400])
def test_it_fits_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    browser.show(page, width, scheme, phone=width < 500)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("innerWidth") == width
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.value("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    assert browser.picture((0, 0, width, 600)).startswith(b"\x89PNG")


# Drawn text whose height on the screen is below what can be read, and text that sticks out of its chart.
SMALL = "[...document.querySelectorAll('figure text')].filter(t => { const b = t.getBoundingClientRect();"
SMALL += " return b.height > 0 && b.height < 11.5 }).length"
OUTSIDE = "[...document.querySelectorAll('figure text')].filter(t => { const b = t.getBoundingClientRect();"
OUTSIDE += " const c = t.ownerSVGElement.getBoundingClientRect(); return b.height > 0 &&"
OUTSIDE += " (b.left < c.left - 1 || b.right > c.right + 1 || b.top < c.top - 1 || b.bottom > c.bottom + 1)})"
OUTSIDE += ".map(t => t.textContent)"


@pytest.mark.parametrize("width", [360, 700, 800, 1400])
def test_letters_in_charts_can_be_read_and_stay_inside(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width, "light", phone=width < 500)
    assert browser.value("[...document.querySelectorAll('figure text')].some(t => t.getBoundingClientRect().height)")
    assert browser.value(SMALL) == 0
    assert browser.value(OUTSIDE) == []


def test_one_drawing_of_each_chart_shows(browser: Browser, page: Path) -> None:
    for width, shown, hidden in ((360, "narrow", "wide"), (1400, "wide", "narrow")):
        browser.show(page, width, "light")
        count = "[...document.querySelectorAll('.{} svg')].filter(s => s.getBoundingClientRect().width).length"
        assert browser.value(count.format(hidden)) == 0
        assert browser.value(count.format(shown)) == browser.value("document.querySelectorAll('figure').length")


def test_a_narrow_table_is_cards_and_loses_no_number(browser: Browser, page: Path) -> None:
    browser.show(page, 360, "light", phone=True)
    assert browser.value("getComputedStyle(document.querySelector('#latency tbody tr')).display") == "grid"
    wider = "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth).length"
    assert browser.value(wider) == 0
    text = browser.value("document.querySelector('#latency').innerText")
    assert "5.65 ms [5.63, 5.67]" in text and "p99" in text and "faster" in text


def test_it_prints_on_white(browser: Browser, page: Path) -> None:
    browser.show(page, 1000, "dark")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value("getComputedStyle(document.body).backgroundColor") == GROUNDS["light"]
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")
