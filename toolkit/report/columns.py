"""Plain text in columns that fits a terminal of 80."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

WIDTH = 80


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """``rows`` with their cells padded to the widest of each column; columns numbered in ``right`` are right-aligned.

    The first column gives way, with an ellipsis, where a line would not fit.
    """
    if not rows:
        return []
    widths = [max(cells(printable(row[index])) for row in rows) for index in range(len(rows[0]))]
    widths[0] = max(6, min(widths[0], WIDTH - sum(widths[1:]) - len(widths) + 1))
    return [" ".join(_cell(text, widths[i], i in right) for i, text in enumerate(row)).rstrip() for row in rows]


def _cell(text: str, width: int, right: bool) -> str:
    text = shortened(text, width)
    padding = " " * (width - cells(text))
    return padding + text if right else text + padding


def shortened(text: str, width: int) -> str:
    """``text`` on one line, its middle replaced by an ellipsis where it takes more than ``width`` cells of a terminal:
    names differ at both ends."""
    text = printable(text)
    if cells(text) <= width:
        return text
    head = (width - 1) // 2
    tail = _prefix(text[::-1], width - 1 - head)[::-1]
    return f"{_prefix(text, head)}…{tail}"


def _prefix(text: str, width: int) -> str:
    """As much of the beginning of ``text`` as fits into ``width`` cells."""
    while cells(text) > width:
        text = text[: -max(1, (cells(text) - width) // 2)]
    return text


def cells(text: str) -> int:
    """How many cells of a terminal ``text`` takes: two for what Unicode calls wide (UAX 11), none for what combines."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def printable(text: str) -> str:
    """``text`` with line breaks and control characters, which names of files may hold, written as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def note(text: str) -> list[str]:
    """``text`` as an indented paragraph."""
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def bar(share: float, width: int) -> str:
    """A bar of ``share`` (0…1) of ``width`` cells, in eighths."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
