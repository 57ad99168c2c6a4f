"""What every part of the page is made from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec

from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.report.names import Family, families, numbers, words


class Context(msgspec.Struct, frozen=True):
    """A report with the names of its cases settled."""

    report: ProfileReport
    numbers: dict[str, int]
    words: dict[str, str]
    families: tuple[Family, ...]
    targets: dict[str, int]
    """Each measured target's series: colour and shape."""

    @classmethod
    def of(cls, report: ProfileReport) -> Context:
        targets = dict.fromkeys(case.target for case in report.measured)
        series = {name: number for number, name in enumerate(targets)}
        return cls(report, numbers(report), words(report.measured), tuple(families(report)), series)

    def series(self, case: CaseRecord) -> int:
        return self.targets[case.target]

    def label(self, case: CaseRecord, family: Family | None = None) -> str:
        """A case's number and name, which within its ``family`` can be shorter."""
        return f"{self.numbers[case.id]} {(family.words if family else self.words)[case.id]}"

    def told(self, case: CaseRecord, family: Family | None = None) -> str:
        """The same as markup."""
        return f"{badge(self.numbers[case.id])} {escape((family.words if family else self.words)[case.id])}"


def badge(number: int) -> str:
    return f'<b class="badge">{number}</b>'


def plural(count: int, singular: str, several: str = "") -> str:
    """``1 case``, ``3 cases``."""
    return f"{count} {singular if count == 1 else several or singular + 's'}"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
