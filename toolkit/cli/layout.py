"""Plain text that fits 80 columns: labelled rows and paragraphs, wrapped and aligned. Nothing is cut off."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 80


def rows(pairs: Sequence[tuple[str, str]], width: int = WIDTH) -> list[str]:
    """Lines of ``label  text``, the texts aligned and wrapped under themselves."""
    margin = max((len(label) for label, _ in pairs), default=0) + 2
    lines: list[str] = []
    for label, text in pairs:
        wrapped = _wrap(text, width - margin) or [""]
        lines += [f"{label if first else '':<{margin}}{line}".rstrip() for first, line in _firsts(wrapped)]
    return lines


def columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose cells are short, each column as wide as its widest cell."""
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]))] if table else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def paragraph(text: str, indent: str = "  ", width: int = WIDTH) -> list[str]:
    """Lines of ``text``, indented."""
    return [indent + line for line in _wrap(text, width - len(indent))]


def _wrap(text: str, width: int) -> list[str]:
    # Commands and paths are copied by hand: never broken inside a word.
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _firsts(lines: Sequence[str]) -> list[tuple[bool, str]]:
    return [(index == 0, line) for index, line in enumerate(lines)]
