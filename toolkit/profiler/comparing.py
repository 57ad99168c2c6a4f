"""Two records side by side: what got slower or faster between two runs, and whether that can be said at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from toolkit.errors import UsageError
from toolkit.profiler.differences import Difference, differences, listed
from toolkit.profiler.pairing import Verdict
from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.profiler.rounds import log_medians
from toolkit.profiler.unpaired import UNPAIRED_MARGIN, UnpairedRatio, unpaired_ratio, verdicts
from toolkit.providers.session import Execution

_WHERE = "compare"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One case in both records. ``ratio`` is the new time over the old: below 1 is faster; None where it has none.

    Attributes:
        old, new: ids of the two.
        p50_ns: medians, old and new.
        ratio_ci: at 99 %, for this ratio alone.
        notes: what else differs between the two.
    """

    old: str
    new: str
    p50_ns: tuple[int, int]
    ratio: float
    ratio_ci: tuple[float, float] | None
    verdict: Verdict
    processes: tuple[int, int]
    notes: list[str] = []


class RecordComparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that two records have in common, and what only one of them has measured.

    Attributes:
        margin: differences within it, either way, are never called.
        environment: what differs between the machines; empty where they are the same.
    """

    old_time_utc: str
    new_time_utc: str
    margin: float
    environment: list[Difference]
    changes: list[Change]
    only_old: list[str]
    only_new: list[str]
    warnings: list[str] = []


def compare(old: ProfileReport, new: ProfileReport, *, across: bool = False, seed: int = 0) -> RecordComparison:
    """Compare what both measured: same model (by name, else by content), target, batch, dims and scenario.

    Where nothing fits and each record is of one model, that model is taken to be the same one, changed.

    Args:
        across: compare even though the environments differ.

    Raises:
        UsageError: they differ and ``across`` is False, or the two have nothing in common.
    """
    apart = differences(old.environment, new.environment)
    if apart and not across:
        raise UsageError(
            "the records come from different environments", where=_WHERE, got=listed(apart),
            next_step="--across-environments compares them all the same",
        )  # fmt: skip
    pairs = joined(old.measured, new.measured)
    if not pairs:
        raise UsageError(
            "the records have no case in common", where=_WHERE, got=_ids(new.measured), expected=_ids(old.measured)
        )
    found = [(pair, ratio) for pair in pairs if (ratio := _ratio(*pair, seed)) is not None]
    called = verdicts([ratio for _, ratio in found])
    return RecordComparison(
        old_time_utc=old.time_utc,
        new_time_utc=new.time_utc,
        margin=UNPAIRED_MARGIN,
        environment=apart,
        changes=[_change(*pair, ratio, verdict) for (pair, ratio), verdict in zip(found, called, strict=True)],
        only_old=_left(old, [pair[0] for pair in pairs]),
        only_new=_left(new, [pair[1] for pair in pairs]),
        warnings=[*(f"old: {text}" for text in old.warnings), *(f"new: {text}" for text in new.warnings)],
    )


def _ratio(old: CaseRecord, new: CaseRecord, seed: int) -> UnpairedRatio | None:
    return unpaired_ratio(log_medians(old), log_medians(new), seed)


def _ids(cases: Sequence[CaseRecord]) -> str:
    if not cases:
        return "nothing that was measured"
    return ", ".join(case.id for case in cases[:4]) + (f" and {len(cases) - 4} more" if len(cases) > 4 else "")


def _left(report: ProfileReport, taken: Sequence[CaseRecord]) -> list[str]:
    ids = {case.id for case in taken}
    return [case.id for case in report.measured if case.id not in ids]


def joined(old: Sequence[CaseRecord], new: Sequence[CaseRecord]) -> list[tuple[CaseRecord, CaseRecord]]:
    """Pairs of the same case, in the order of ``old``, each case in one pair at most.

    A name that stayed counts before content that did: a file that was renamed is found by its content, but two copies
    under different names stay what they are called.
    """
    found: dict[int, CaseRecord] = {}
    waiting = list(new)
    keys: list[Callable[[CaseRecord], str]] = [lambda case: case.model, lambda case: case.model_sha256]
    if len({case.model for case in old}) == len({case.model for case in new}) == 1:
        keys.append(lambda case: "the only one")
    for key in keys:
        for index, case in enumerate(old):
            same = [] if index in found or not key(case) else [
                other for other in waiting if key(other) == key(case) and _setting(other) == _setting(case)
            ]  # fmt: skip
            if same:
                found[index] = same[0]
                waiting.remove(same[0])
    return [(old[index], found[index]) for index in sorted(found)]


def _setting(case: CaseRecord) -> tuple[object, ...]:
    """What has to be equal. Offline the batch is found by each run for itself."""
    batch = None if case.scenario == "offline" else case.batch
    return case.target, batch, tuple(sorted(case.dims.items())), case.scenario, case.streams


def _change(old: CaseRecord, new: CaseRecord, ratio: UnpairedRatio, verdict: Verdict) -> Change:
    medians = tuple(case.latency_ns.p50 or 0 if case.latency_ns else 0 for case in (old, new))
    return Change(
        old=old.id,
        new=new.id,
        p50_ns=(medians[0], medians[1]),
        ratio=ratio.ratio,
        ratio_ci=ratio.interval,
        verdict=verdict,
        processes=ratio.processes,
        notes=[*([f"no interval: {ratio.reason}"] if ratio.reason else []), *notes(old, new)],
    )


def notes(old: CaseRecord, new: CaseRecord) -> list[str]:
    """What differs between two records of one case beside their times."""
    found = []
    if old.model_sha256 and new.model_sha256 and old.model_sha256 != new.model_sha256:
        found.append(f"the model changed: {old.model_sha256[:8]} → {new.model_sha256[:8]}")
    elif not (old.model_sha256 and new.model_sha256):
        found.append("whether the model is the same cannot be told: a record holds no hash")
    if old.precision != new.precision:
        found.append(f"precision {old.precision} → {new.precision}")
    if old.execution is not None and new.execution is not None:
        for fact, text in _RAN.items():
            before, after = text(old.execution), text(new.execution)
            if before != after:
                found.append(f"{fact} {before} → {after}")
    return found


# What of a proof is the engine's choice and not the graph's, which may well have changed.
_RAN: dict[str, Callable[[Execution], str]] = {
    "provider": lambda ran: ran.provider,
    "device": lambda ran: ran.device,
    "threads": lambda ran: str(ran.threads),
    "computed in": lambda ran: "/".join(sorted(ran.executed_precision)) or "unknown",
}
