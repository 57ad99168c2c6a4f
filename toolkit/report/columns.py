"""Plain text in columns that fits a terminal of 80."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 80


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """``rows`` with their cells padded to the widest of each column; columns numbered in ``right`` are right-aligned.

    The first column gives way, with an ellipsis, where a line would not fit.
    """
    if not rows:
        return []
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    widths[0] = max(6, min(widths[0], WIDTH - sum(widths[1:]) - len(widths) + 1))
    return [" ".join(_cell(text, widths[i], i in right) for i, text in enumerate(row)).rstrip() for row in rows]


def _cell(text: str, width: int, right: bool) -> str:
    text = shortened(text, width)
    return text.rjust(width) if right else text.ljust(width)


def shortened(text: str, width: int) -> str:
    """``text``, its middle replaced by an ellipsis where it is longer than ``width``: names differ at both ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def note(text: str) -> list[str]:
    """``text`` as an indented paragraph."""
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def bar(share: float, width: int) -> str:
    """A bar of ``share`` (0…1) of ``width`` cells, in eighths."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
