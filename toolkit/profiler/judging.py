"""One case of a check judged: passed, slower, or not to be told; and how several looks and cases share one error.

    lower bound of the ratio's interval above the limit      slower
    upper bound at or below it                               passed
    between them                                             inconclusive

Sources for the error of 1 % that all of them share:
    * every look at the growing data may go wrong: the error is divided by how many there can be (Bonferroni; the
      boundaries of Pocock, Biometrika 64, 1977, would gain little for so few);
    * all cases have to pass: each is tested at the full level (intersection-union test, Berger 1982);
    * one slower case fails the check: their number divides the error of the lower bounds (Bonferroni).
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from toolkit.profiler.pairing import FEWEST_ROUNDS, paired_ratio
from toolkit.profiler.protocol import HOLDS_NAN
from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.profiler.rounds import log_medians, log_ratios
from toolkit.profiler.unpaired import unpaired_ratio

Answer = Literal["passed", "slower", "inconclusive", "not measured"]
Families = tuple[int, int]
"""How many comparisons the lower bound has to hold for, and the upper one."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One case of the check.

    Attributes:
        ratio: time of the new model over time of the old one; ``ratio_ci`` as wide as looks and cases ask for.
        p50_ns: medians, old and new.
        reason: why there is no answer.
    """

    old: str
    new: str
    answer: Answer
    ratio: float | None = None
    ratio_ci: tuple[float, float] | None = None
    p50_ns: tuple[int, int] | None = None
    reason: str = ""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a check.

    Attributes:
        limit: the largest ratio that is allowed: 1.05 for 5 % slower.
        paired: both were measured in one interleaved run.
        spent_s: the budget that was used.
        warnings: doubts about the measurement.
    """

    answer: Answer
    limit: float
    paired: bool
    spent_s: float
    cases: list[Checked]
    warnings: list[str] = []
    interrupted: bool = False


def paired_case(report: ProfileReport, old: CaseRecord, new: CaseRecord, limit: float, families: Families) -> Checked:
    missing = _missing(old, new)
    if not missing and _compared_with(report, old) != _compared_with(report, new):
        missing = "the two were fed different shapes, or never took part in one round"
    if missing:
        return Checked(old=old.id, new=new.id, answer="not measured", reason=missing)
    found = [paired_ratio(log_ratios(old, new), family=family) for family in families]
    lower, upper = (item.interval if item else None for item in found)
    ratio = found[0].ratio if found[0] else None
    return _judged(old, new, ratio, lower, upper, limit, f"too few rounds, {FEWEST_ROUNDS} are needed")


def _compared_with(report: ProfileReport, case: CaseRecord) -> str:
    """The baseline of those that ``case`` shared rounds with."""
    comparison = report.comparison(case)
    return case.id if comparison is None else comparison.baseline


def unpaired_case(old: CaseRecord, new: CaseRecord | None, limit: float, families: Families) -> Checked:
    missing = "not among what was measured now" if new is None else _missing(old, new)
    if new is None or missing:
        return Checked(old=old.id, new="" if new is None else new.id, answer="not measured", reason=missing)
    found = [unpaired_ratio(log_medians(old), log_medians(new), family=family) for family in families]
    lower, upper = (item.interval if item else None for item in found)
    ratio, reason = (found[0].ratio, found[0].reason) if found[0] else (None, "")
    return _judged(old, new, ratio, lower, upper, limit, reason)


def _missing(old: CaseRecord, new: CaseRecord) -> str:
    """Why there is nothing to compare; about the new model where nothing else is said.

    A model that began to answer NaN is as good as one that crashed: whatever its time, it is not the model's.
    """
    if new.status != "ok":
        return _reason(new)
    if old.status != "ok":
        return f"{old.id}: {_reason(old)}"
    return "" if _nan(old) else ", ".join(_nan(new))


def _reason(case: CaseRecord) -> str:
    """Why ``case`` was not measured, without the names of itself and its file that messages start with."""
    text = case.reason or case.status
    for name in (case.id, case.model):
        text = re.sub(rf"^([^\s:]*/)?{re.escape(name)}: ", "", text)
    return text


def _nan(case: CaseRecord) -> list[str]:
    return [text for text in case.warnings if text.endswith(HOLDS_NAN)]


def _judged(
    old: CaseRecord,
    new: CaseRecord,
    ratio: float | None,
    lower: tuple[float, float] | None,
    upper: tuple[float, float] | None,
    limit: float,
    reason: str,
) -> Checked:
    medians = [case.latency_ns.p50 or 0 if case.latency_ns else 0 for case in (old, new)]
    interval = None if lower is None or upper is None else (lower[0], upper[1])
    answer: Answer = "inconclusive"
    if interval is not None:
        reason = ""
        answer = "slower" if interval[0] > limit else "passed" if interval[1] <= limit else "inconclusive"
    return Checked(
        old=old.id, new=new.id, answer=answer, ratio=ratio, ratio_ci=interval, p50_ns=(medians[0], medians[1]),
        reason=reason,
    )  # fmt: skip
