"""Two records side by side, and the answer of a check, for the terminal: 80 columns, plain text."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.profiler.comparing import RecordComparison
from toolkit.profiler.judging import Checked, CheckReport
from toolkit.report.columns import columns, note
from toolkit.report.numbers import duration, ratio_with_interval
from toolkit.report.rows import MISSING

_NUMERIC = (1, 2)
_SHORT = {"no significant difference": "no diff"}


def comparison_table(found: RecordComparison) -> str:
    """Every case that both records have, then what differs between them beside the times."""
    rows: list[tuple[str, ...]] = [("case", "old p50", "new p50", "new/old [99%]", "verdict")]
    for change in found.changes:
        old, new = (duration(value) for value in change.p50_ns)
        ratio = ratio_with_interval(change.ratio, change.ratio_ci)
        verdict = _SHORT.get(change.verdict, change.verdict) if change.ratio_ci else "too few"
        rows.append((change.old, old, new, ratio, verdict))
    return "\n".join([*columns(rows, _NUMERIC), "", *_remarks(found)])


def _remarks(found: RecordComparison) -> Iterator[str]:
    if found.environment:
        yield "ENVIRONMENTS DIFFER, so the ratios are not about the models alone:"
        for difference in found.environment:
            yield from note(str(difference))
    for change in found.changes:
        if change.notes:
            yield from note(f"{change.old}: {'; '.join(change.notes)}")
    for side, names in (("old", found.only_old), ("new", found.only_new)):
        if names:
            yield from note(f"in the {side} record alone: {', '.join(names)}")
    for text in found.warnings:
        yield from note(text)
    yield f"old {found.old_time_utc or 'of unknown time'}, new {found.new_time_utc or 'of unknown time'}"
    yield from note(
        "new/old below 1 is faster. Measured at different times, so nothing cancels: under"
        f" {found.margin:.0%} no difference is called; verdicts allow for {len(found.changes)} at once."
    )


def check_table(found: CheckReport) -> str:
    """Every case of a check, then the doubts, then the answer."""
    rows: list[tuple[str, ...]] = [("case", "old p50", "new p50", "new/old", "answer")]
    rows += [_row(case) for case in found.cases]
    lines = [*columns(rows, _NUMERIC), ""]
    lines += [line for case in found.cases if case.reason for line in note(f"{case.new or case.old}: {case.reason}")]
    lines += [line for text in found.warnings for line in note(text)]
    return "\n".join([*lines, *note(summary(found))])


def _row(case: Checked) -> tuple[str, ...]:
    old, new = (MISSING, MISSING) if case.p50_ns is None else (duration(value) for value in case.p50_ns)
    return (case.new or case.old, old, new, ratio_text(case), case.answer)


def ratio_text(case: Checked) -> str:
    return MISSING if case.ratio is None else ratio_with_interval(case.ratio, case.ratio_ci)


def summary(found: CheckReport) -> str:
    """The answer in one sentence."""
    how = "in one interleaved run" if found.paired else "against a stored record"
    return f"{found.answer}: limit {found.limit:.4g}, {found.spent_s:g} s of measuring {how}"
