"""Tables that are rows on a screen and cards on a phone, and are read out as tables on both.

Cards are blocks, which makes browsers forget that they were a table: the roles say it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

import msgspec

from toolkit.report.rows import MISSING


class Cell(msgspec.Struct, frozen=True):
    """``markup`` is markup already; ``class_`` is for the style sheet.

    On cards, "drawn" and "span" cells are as wide as the card, and "none" cells are left out.
    """

    markup: str
    class_: str = ""


class Note(msgspec.Struct, frozen=True):
    """A row of one cell, below the row it belongs to."""

    markup: str


def known(text: str | None, class_: str = "") -> Cell:
    """A cell of ``text`` that is no markup; a dash, which cards leave out, where there is none."""
    return Cell(escape(text), class_) if text and text != MISSING else Cell(MISSING, "none")


def table(caption: str, head: Sequence[str], lines: Iterable[Sequence[Cell] | Note]) -> Iterator[str]:
    """A table whose first column names its rows; ``caption`` is for those who cannot see what stands around it."""
    yield '<div class="scroll" role="region" tabindex="0" aria-label="' + escape(caption) + '"><table role="table">'
    yield f'<caption class="unseen">{escape(caption)}</caption>'
    heads = "".join(f'<th scope="col" role="columnheader">{escape(name)}</th>' for name in head)
    yield f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
    yield '<tbody role="rowgroup">'
    for line in lines:
        yield _note(line, len(head)) if isinstance(line, Note) else _row(line, head)
    yield "</tbody></table></div>"


def _note(note: Note, columns: int) -> str:
    return f'<tr role="row" class="note"><td role="cell" colspan="{columns}">{note.markup}</td></tr>'


def _row(cells: Sequence[Cell], head: Sequence[str]) -> str:
    first, *others = cells
    named = "".join(
        f'<td role="cell" data-name="{escape(name)}"{_class(cell)}><div>{cell.markup}</div></td>'
        for cell, name in zip(others, head[1:], strict=True)
    )
    return f'<tr role="row"><th scope="row" role="rowheader"{_class(first)}><div>{first.markup}</div></th>{named}</tr>'


def _class(cell: Cell) -> str:
    return f' class="{cell.class_}"' if cell.class_ else ""
