"""A profile report as one HTML page: no network, no script; light and dark, from a phone's width to a wide screen's.

Every part draws from :class:`toolkit.report.page.context.Context` and yields markup, or nothing where the report has
nothing for it: then neither its heading nor its link is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from importlib.resources import files

from toolkit.profiler.records import ProfileReport
from toolkit.report.headline import headline, tally
from toolkit.report.page.context import Context
from toolkit.report.page.curves import curves
from toolkit.report.page.distributions import distributions
from toolkit.report.page.evidence import costs, missing, proof, surroundings
from toolkit.report.page.hot_operators import hot_operators
from toolkit.report.page.numbers_table import numbers
from toolkit.report.page.roofline import rooflines
from toolkit.report.page.tradeoffs import tradeoffs
from toolkit.report.rows import baseline_names

# Anchor, heading, part.
_PARTS: tuple[tuple[str, str, Callable[[Context], Iterator[str]]], ...] = (
    ("latency", "Latency", numbers),
    ("distributions", "Distributions", distributions),
    ("trade-offs", "Trade-offs", tradeoffs),
    ("sweeps", "Sweeps", curves),
    ("roofline", "Roofline", rooflines),
    ("operators", "Where time goes", hot_operators),
    ("costs", "Beyond latency", costs),
    ("proof", "What ran", proof),
    ("missing", "Without numbers", missing),
    ("environment", "Environment", surroundings),
)


def as_html(report: ProfileReport) -> str:
    """The whole page."""
    style = (files("toolkit.report.page") / "page.css").read_text(encoding="utf-8")
    context = Context.of(report)
    parts = [(anchor, name, "\n".join(part(context))) for anchor, name, part in _PARTS]
    shown = [(anchor, name, markup) for anchor, name, markup in parts if markup]
    links = " ".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in shown)
    body = "\n".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-h">\n<h2 id="{anchor}-h">{name}</h2>\n{markup}\n</section>'
        for anchor, name, markup in shown
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_title(report))}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header>\n{"".join(_header(report))}<nav aria-label="On this page">{links}</nav>\n</header>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _title(report: ProfileReport) -> str:
    models = list(dict.fromkeys(case.model for case in report.measured))
    return f"Latency report: {', '.join(models[:3])}{' …' if len(models) > 3 else ''}" if models else "Latency report"


def _header(report: ProfileReport) -> Iterator[str]:
    machine = report.environment
    gpus = "".join(f", {gpu.get('name', 'GPU')}" for gpu in machine.gpus)
    yield f"<h1>{escape(_title(report))}</h1>\n"
    yield f'<p class="headline">{escape(headline(report))}</p>\n'
    more = tally(report)
    if more:
        yield f"<p>{escape(more)}</p>\n"
    names = ", ".join(f"<code>{escape(name)}</code>" for name in baseline_names(report))
    compared = f" Compared with {names}: a ratio below 1 is faster." if names else ""
    yield f'<p class="dim">{escape(machine.cpu)}, {machine.usable_cores} cores{escape(gpus)}.{compared}</p>\n'
    doubts = list(report.warnings)
    if report.interrupted:
        doubts.insert(0, "the run was interrupted: this is what had been measured")
    yield from (f'<p class="doubt">⚠ {escape(text)}</p>\n' for text in doubts)
