"""Going on with an earlier run: the same cases, settings and machine; samples add up, process numbers go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from toolkit.errors import InvalidData, UsageError
from toolkit.profiler.cases import Case, Skipped, label
from toolkit.profiler.differences import require_same
from toolkit.profiler.environment import Environment
from toolkit.profiler.planning import ALL
from toolkit.profiler.protocol import Opened
from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.profiler.rounds import blocks
from toolkit.profiler.schedule import Course, Turn
from toolkit.targets import Target

_WHERE = "--resume"
_ANEW = "measure anew without --resume"
# What the samples hang on; the budget, the baseline and the number of processes may change.
_FIXED = ("seed", "data")
_SETTINGS = ("budget_s", "processes", "seed", "baseline", "scenarios", "streams", "sweeps", "ci_width")


def request(
    models: Sequence[str],
    asked: Sequence[str | Target],
    targets: Mapping[str, Target],
    batches: Sequence[int] | None,
    dims: Mapping[str, int],
) -> dict[str, Any]:
    """What a report keeps so that the same run can be set up again, as plain data.

    Args:
        models: their texts.
        asked: targets as they were asked for. targets: what that meant, by name.
        batches, dims: as :func:`toolkit.profile` takes them.
    """
    return {
        "models": list(models),
        "targets": [ALL] if ALL in asked else list(targets),
        "definitions": {name: msgspec.json.decode(msgspec.json.encode(item)) for name, item in targets.items()},
        "batches": None if batches is None else list(batches),
        "dims": dict(dims),
    }


def requested(report: ProfileReport) -> dict[str, Any]:
    """Arguments of :func:`toolkit.profile` that set the run of ``report`` up again.

    Raises:
        InvalidData: the report does not say what was asked for.
    """
    if not report.request:
        raise InvalidData("the report does not say what was asked for", where=_WHERE, next_step=_ANEW)
    known = definitions(report)
    names = report.request.get("targets", [])
    settings = {name: report.settings[name] for name in _SETTINGS if name in report.settings}
    data = report.settings.get("data", "random")
    return settings | {
        "models": report.request.get("models", []),
        "targets": [ALL] if ALL in names else [known[name] for name in names if name in known],
        "batches": report.request.get("batches"),
        "dims": report.request.get("dims", {}),
        "data": None if data == "random" else data,
    }


def definitions(report: ProfileReport) -> dict[str, Target]:
    """The targets of ``report`` as they were then, by name.

    Raises:
        InvalidData: they cannot be read.
    """
    try:
        return msgspec.convert(report.request.get("definitions", {}), dict[str, Target])
    except msgspec.ValidationError as exc:
        raise InvalidData("the report is damaged", where=_WHERE, got=f"targets: {exc}", next_step=_ANEW) from exc


def courses(
    earlier: ProfileReport,
    planned: Sequence[Case | Skipped],
    surroundings: Environment,
    targets: Mapping[str, Target],
    settings: Mapping[str, Any],
) -> list[Course]:
    """A course per case to measure, with what ``earlier`` has of it; cases that failed then start anew.

    Raises:
        UsageError: models, targets, sizes, inputs or the machine are not those of ``earlier``; it says which.
    """
    require_same(earlier.environment, surroundings, _WHERE, _ANEW)
    for name in _FIXED:
        _require(name, earlier.settings.get(name), settings.get(name))
    _require_targets(earlier, targets)
    records = {record.id: record for record in earlier.cases}
    _require_cases(records, [label(item if isinstance(item, Case) else item.case) for item in planned])
    return [_course(item, records[label(item)], earlier) for item in planned if isinstance(item, Case)]


def _require(what: str, expected: object, got: object) -> None:
    if got != expected:
        raise UsageError(
            f"the report holds another run: {what} differs", where=_WHERE, got=got, expected=expected, next_step=_ANEW
        )


def _require_cases(records: Mapping[str, CaseRecord], wanted: Sequence[str]) -> None:
    added = [name for name in wanted if name not in records]
    missing = [name for name in records if name not in wanted]
    texts = [f"{', '.join(names)} {what}" for names, what in ((added, "not in it"), (missing, "in it alone")) if names]
    if texts:
        raise UsageError("the report holds other cases", where=_WHERE, got="; ".join(texts), next_step=_ANEW)


def _require_targets(earlier: ProfileReport, targets: Mapping[str, Target]) -> None:
    known = definitions(earlier)
    for name, target in targets.items():
        if name in known:  # one that is new shows as a case that is
            _require(f"target {name}", _use(known[name]), _use(target))


def _use(target: Target) -> dict[str, Any]:
    """What of a target matters to what runs."""
    facts: dict[str, Any] = msgspec.to_builtins(target)
    del facts["description"]
    return facts


def _course(case: Case, record: CaseRecord, earlier: ProfileReport) -> Course:
    _require(f"{case.model}'s content", record.model_sha256 or "unknown (an older report)", case.model_sha256)
    if record.status != "ok":
        return Course(case)
    # A block of several streams was as long as their calls side by side; its very window is not in the record.
    turns = [
        Turn(process, number, samples.tolist(), float(len(samples)), int(samples.sum()) // record.streams)
        for process, number, samples in blocks(record)
    ]
    return Course(
        case,
        turns=turns,
        openings=[_opened(record, earlier)] * len({turn.process for turn in turns}),
        calls=record.calls,
        peak_memory_bytes=record.peak_memory_bytes or 0,
        execution=record.execution,
    )


def _opened(record: CaseRecord, earlier: ProfileReport) -> Opened:
    """An opening as the report remembers it: medians for times.

    It does not keep the shapes that were fed. In their place stands whom the case was compared with then, which serves
    to tell who is comparable until the case is opened anew.
    """
    comparison = earlier.comparison(record)
    baseline = record.id if comparison is None else comparison.baseline
    return Opened(
        import_ns=record.import_ns or 0,
        load_ns=record.load_ns or 0,
        first_inference_ns=record.first_inference_ns or 0,
        precision=record.precision,
        batch=record.batch or 1,
        dims=record.dims,
        shapes=[[-1 - [case.id for case in earlier.cases].index(baseline)]],
        base_memory_bytes=record.base_memory_bytes or 0,
        streams=record.streams,
    )
