"""A yes or no for CI: is the new model slower than allowed? Enough time is spent to tell, and doubt never passes.

The old model and the new one run interleaved, or the new one is held against a stored record. While the answer is
inconclusive (:mod:`toolkit.profiler.judging`) the budget is doubled, up to a maximum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from toolkit.errors import UsageError
from toolkit.profiler.api import profile
from toolkit.profiler.differences import require_same
from toolkit.profiler.environment import environment
from toolkit.profiler.identity import identified
from toolkit.profiler.interference import worst
from toolkit.profiler.interrupts import interrupts
from toolkit.profiler.judging import Answer, Checked, CheckReport, Families, paired_case, unpaired_case
from toolkit.profiler.models import Model, models
from toolkit.profiler.planning import ALL
from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.profiler.resuming import definitions
from toolkit.profiler.unpaired import UNPAIRED_MARGIN
from toolkit.targets import Target

_WORST_FIRST: tuple[Answer, ...] = ("slower", "not measured", "inconclusive", "passed")
Text = str | os.PathLike[str]


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much time may be spent: ``budget_s`` at first, doubled while there is doubt, ``max_budget_s`` in all."""

    budget_s: float = 30.0
    max_budget_s: float = 120.0

    def totals(self) -> list[float]:
        """Seconds spent in all at each look at the data."""
        found = [self.budget_s]
        while found[-1] < self.max_budget_s:
            found.append(min(2 * found[-1], self.max_budget_s))
        return found


@interrupts()
def check_models(
    old: Text, new: Text, *, max_slowdown: float, targets: Sequence[str | Target], effort: Effort, **options: Any
) -> tuple[CheckReport, ProfileReport]:
    """Measure ``old`` and ``new`` side by side on ``targets`` until the answer is clear or the effort spent.

    Args:
        max_slowdown: how much slower the new model may be: 0.05 for 5 %. options: further ones of
        :func:`toolkit.profile`.

    Returns:
        The answer, and the report of what was measured.

    Raises:
        UsageError: they are not two model files; whatever measuring raises.
    """
    pair = [_one_model(old), _one_model(new)]
    pair = models(pair) if pair[0].name != pair[1].name else _told_apart(pair, (old, new))

    def judge(report: ProfileReport, looks: int) -> list[Checked]:
        half = len(report.cases) // 2
        sides = zip(report.cases[:half], report.cases[half:], strict=True)
        wanted = [sided for sided in sides if not (ALL in targets and _both_absent(*sided))]
        return [
            paired_case(report, before, after, 1 + max_slowdown, _families(looks, len(wanted)))
            for before, after in wanted
        ]

    measured = options | {"models": pair, "targets": targets}
    return _until_clear(measured, effort, judge, max_slowdown, paired=True)


def _told_apart(pair: Sequence[Model], texts: tuple[Text, Text]) -> list[Model]:
    """Two files of one name, as they often have it in two folders; even one file twice, which must pass."""
    names = [os.fspath(text) for text in texts]
    if names[0] == names[1]:
        names = [f"{names[0]} (old)", f"{names[1]} (new)"]
    return [msgspec.structs.replace(model, name=name) for model, name in zip(pair, names, strict=True)]


@interrupts()
def check_against(
    model: Text,
    baseline: ProfileReport,
    *,
    max_slowdown: float,
    targets: Sequence[str | Target] = (),
    effort: Effort,
    across: bool = False,
    **options: Any,
) -> tuple[CheckReport, ProfileReport]:
    """Measure ``model`` as ``baseline`` was measured, and hold it against that record.

    Args:
        targets: those of the record by default. across: compare even though the environments differ.
        max_slowdown, effort, options: as for :func:`check_models`.

    Raises:
        UsageError: another environment, or the record has nothing to compare this model with.
    """
    if not across:
        require_same(
            baseline.environment, environment(), "--baseline", "--across-environments compares them all the same"
        )
    described = identified([_one_model(model)])[0]
    names = [item.name if isinstance(item, Target) else item for item in targets]
    stored = _stored_cases(baseline, described, names, options)

    def judge(report: ProfileReport, looks: int) -> list[Checked]:
        families = _families(looks, len(stored))
        return [unpaired_case(case, _same(case, report), 1 + max_slowdown, families) for case in stored]

    known = definitions(baseline)
    data = baseline.settings.get("data", "random")
    measured = options | {
        "models": [described],
        "targets": list(targets) or [known.get(name, name) for name in dict.fromkeys(case.target for case in stored)],
        "batches": sorted({case.batch or 1 for case in stored}),
        "dims": stored[0].dims,
        "data": options.get("data") or (None if data == "random" else data),
    }
    return _until_clear(measured, effort, judge, max_slowdown, paired=False)


def _one_model(text: Text) -> Model:
    found = models([text])
    if len(found) != 1:
        raise UsageError("a check takes model files", where=text, got=f"a bundle of {len(found)} variants")
    return found[0]


_Judge = Callable[[ProfileReport, int], list[Checked]]


def _until_clear(
    measured: dict[str, Any], effort: Effort, judge: _Judge, max_slowdown: float, *, paired: bool
) -> tuple[CheckReport, ProfileReport]:
    report: ProfileReport | None = None
    totals = effort.totals()
    for spent_s, total_s in zip([0.0, *totals], totals, strict=False):
        report = profile(**measured, budget_s=total_s - spent_s, resume=report)
        cases = judge(report, len(totals))
        answer = _worst(cases)
        if answer != "inconclusive" or report.interrupted:
            break
    assert report is not None, "there is a first look"
    limit = 1 + max_slowdown
    found = CheckReport(
        answer=answer,
        limit=limit,
        paired=paired,
        spent_s=total_s,
        cases=cases,
        warnings=list(_doubts(report, max_slowdown, paired)),
        interrupted=report.interrupted,
    )
    return found, report


def _families(looks: int, cases: int) -> Families:
    """All cases have to pass, and any one fails the check; every look may go wrong either way."""
    return looks * max(1, cases), looks


def _worst(cases: Sequence[Checked]) -> Answer:
    answers = {case.answer for case in cases}
    return next((item for item in _WORST_FIRST if item in answers), "not measured")


def _doubts(report: ProfileReport, max_slowdown: float, paired: bool) -> Iterator[str]:
    yield from worst(report.warnings)
    yield from (f"{case.id}: {text}" for case in report.measured for text in case.warnings)
    if not paired and max_slowdown < UNPAIRED_MARGIN:
        yield f"runs at different times differ by up to {UNPAIRED_MARGIN:.0%} for no reason: check OLD NEW is finer"


def _both_absent(before: CaseRecord, after: CaseRecord) -> bool:
    """Neither can run there, which is all right where every target there is was asked for."""
    return {before.status, after.status} <= {"unavailable", "not_applicable"}


def _stored_cases(
    baseline: ProfileReport, model: Model, targets: Sequence[str], options: dict[str, Any]
) -> list[CaseRecord]:
    """The cases of the record that ``model`` is held against: of its name, else its content, else of the only model.

    Raises:
        UsageError: there are none, or they are of several sizes, which one run cannot measure.
    """
    where = "--baseline"
    measured = [case for case in baseline.measured if case.scenario == "single-stream"]
    names = list(dict.fromkeys(case.model for case in measured))
    found = (
        [case for case in measured if case.model == model.name]
        or [case for case in measured if case.model_sha256 and case.model_sha256 == model.sha256]
        or (measured if len(names) == 1 else [])
    )
    if not found:
        raise UsageError("the record has no such model", where=where, got=model.name, expected=", ".join(names) or None)
    if targets and ALL not in targets:
        found = [case for case in found if case.target in targets]
    batches, dims = options.get("batches"), dict(options.get("dims") or {})
    found = [case for case in found if (not batches or case.batch in batches) and dims.items() <= case.dims.items()]
    if not found:
        raise UsageError(
            "the record has no such case", where=where, got=f"targets {targets}, batch {batches}, dims {dims}"
        )
    if any(case.dims != found[0].dims for case in found):
        sizes = "; ".join(dict.fromkeys(str(case.dims) for case in found))
        raise UsageError("the record holds several sizes", where=where, got=sizes, next_step="choose one by --dim")
    return found


def _same(stored: CaseRecord, report: ProfileReport) -> CaseRecord | None:
    return next((case for case in report.cases if (case.target, case.batch) == (stored.target, stored.batch)), None)
