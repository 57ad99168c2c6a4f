"""What a report calls its cases: a number that stays the same on the whole page, and no more words than are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from toolkit.profiler.records import CaseRecord, ProfileReport


class Family(msgspec.Struct, frozen=True):
    """Measured cases that belong into one table.

    Attributes:
        comparable: they were fed the same, so that what is faster is better.
        words: what tells each case from the others of the family, by id.
    """

    title: str
    cases: tuple[CaseRecord, ...]
    comparable: bool
    words: dict[str, str]


def numbers(report: ProfileReport) -> dict[str, int]:
    """Every measured case's number, from 1, by id."""
    return {case.id: number for number, case in enumerate(report.measured, start=1)}


def words(cases: Sequence[CaseRecord]) -> dict[str, str]:
    """The target of each case, and model, sizes and scenario as far as it takes them to tell ``cases`` apart, by id."""
    parts = {case.id: (case.target, case.model, sizes(case), scenario(case)) for case in cases}
    told = [0]
    for index in (1, 2, 3):
        if _distinct(parts.values(), [*told, index]) > _distinct(parts.values(), told):
            told.append(index)
    return {name: ", ".join(known[index] for index in told if known[index]) for name, known in parts.items()}


def _distinct(known: Iterable[tuple[str, ...]], positions: Sequence[int]) -> int:
    return len({tuple(parts[position] for position in positions) for parts in known})


def families(report: ProfileReport) -> list[Family]:
    """Cases compared with one baseline together with it, the rest by model, in the order of the report."""
    baseline = {item.candidate: item.baseline for item in report.comparisons}
    found: dict[object, list[CaseRecord]] = {}
    for case in report.measured:
        compared = baseline.get(case.id, case.id if case.id in baseline.values() else "")
        found.setdefault(("compared", compared) if compared else ("alone", case.model), []).append(case)
    return [_family(cases) for cases in found.values()]


def _family(cases: Sequence[CaseRecord]) -> Family:
    models = list(dict.fromkeys(case.model for case in cases))
    sized = list(dict.fromkeys(sizes(case) for case in cases))
    run = list(dict.fromkeys(scenario(case) for case in cases))
    comparable = len(sized) == len(run) == 1
    model = models[0] if len(models) == 1 else f"{len(models)} models"
    title = [model, sized[0] if len(sized) == 1 else "several sizes", run[0] if len(run) == 1 else "several scenarios"]
    return Family(", ".join(part for part in title if part), tuple(cases), comparable, words(cases))


def sizes(case: CaseRecord) -> str:
    """``batch 8, seq 64``."""
    batch = [] if case.batch is None else [f"batch {case.batch}"]
    return ", ".join([*batch, *(f"{name} {size}" for name, size in case.dims.items())])


def scenario(case: CaseRecord) -> str:
    """``multi-stream × 4``; "" for one call after the other, which goes without saying."""
    if case.scenario == "single-stream":
        return ""
    return case.scenario + (f" × {case.streams}" if case.streams > 1 else "")
