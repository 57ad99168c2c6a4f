"""From what the workers answered to records: percentiles, doubts, comparisons with the baseline."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from toolkit.errors import UsageError
from toolkit.profiler.beyond import alone, block_time, throughput
from toolkit.profiler.cases import Case, Skipped, label
from toolkit.profiler.doubts import Series, doubts
from toolkit.profiler.pairing import paired_ratio
from toolkit.profiler.records import CaseRecord, ComparisonRecord
from toolkit.profiler.rounds import latency_of, percentiles
from toolkit.profiler.schedule import Course
from toolkit.profiler.statistics import jitter
from toolkit.tensors import nearest


def skipped_record(skipped: Skipped) -> CaseRecord:
    return _record(skipped.case, status=skipped.status, reason=skipped.reason)


def measured_record(course: Course) -> CaseRecord:
    """The record of a case that a worker was started for."""
    case, opened = course.case, course.openings
    warnings = list(dict.fromkeys(text for item in opened for text in item.warnings))
    if course.unproven:
        warnings.append(f"what ran could not be proven: {course.unproven}")
    if not opened or not course.turns:
        ended = course.ended
        if ended is None:
            return _record(case, status="failed", reason="interrupted before it was measured")
        return _record(case, status=ended.status, reason=ended.reason, warnings=warnings)
    blocks = [np.asarray(turn.samples_ns, dtype=np.int64) for turn in course.turns]
    samples = np.concatenate(blocks)
    found = percentiles(blocks)
    series = Series(tuple(blocks), tuple(turn.process for turn in course.turns), found["p50"])
    return _record(
        case,
        precision=opened[0].precision,
        batch=opened[0].batch,
        dims=opened[0].dims,
        # A case that crashed keeps its samples, but a number from it would look like any other.
        status="ok" if course.ended is None else course.ended.status,
        reason="" if course.ended is None else course.ended.reason,
        latency_ns=latency_of(found, jitter(samples)) if course.ended is None else None,
        samples_ns=samples.tolist(),
        blocks=[(turn.process, turn.round, len(turn.samples_ns)) for turn in course.turns],
        calls=course.calls,
        throughput_per_s=throughput(course) if course.ended is None else None,
        streams=opened[-1].streams,
        import_ns=_median(item.import_ns for item in opened),
        load_ns=_median(item.load_ns for item in opened),
        first_inference_ns=_median(item.first_inference_ns for item in opened),
        peak_memory_bytes=course.peak_memory_bytes,
        base_memory_bytes=opened[0].base_memory_bytes,
        execution=course.execution,
        warnings=[*warnings, *doubts(series), *alone(course, throughput(course), found["p50"].value)],
    )


def _record(case: Case, **facts: object) -> CaseRecord:
    known: dict[str, object] = {
        "id": label(case), "model": case.model, "target": case.target.name, "provider": case.target.provider,
        "precision": case.precision, "batch": case.batch, "dims": case.dims,
        "model_sha256": case.model_sha256, "size_bytes": case.size_bytes,
        "scenario": case.scenario, "streams": case.streams,
    }  # fmt: skip
    return CaseRecord(**(known | facts))  # type: ignore[arg-type]  # the names are the struct's own, the tests build each


def _median(values: Iterable[int]) -> int:
    return int(statistics.median(values))


def default_baseline(cases: Sequence[Case]) -> int | None:
    """Index of the case that the others are compared with: the source as it was trained, untouched by options, if
    there is
    one, else the first."""
    sources = [index for index, case in enumerate(cases) if case.opener is not None]
    if sources:
        return min(sources, key=lambda index: len(cases[index].target.engine_options))
    return 0 if cases else None


def chosen_baseline(cases: Sequence[Case], wanted: str) -> int | None:
    """Index of the first case that ``wanted`` names, by its target, model or label; the default where it is ""."""
    if not wanted:
        return default_baseline(cases)
    return next((index for index, case in enumerate(cases) if wanted in names(case)), None)


def names(case: Case) -> tuple[str, str, str]:
    return case.target.name, case.model, label(case)


def check_baseline(cases: Sequence[Case], wanted: str) -> None:
    """Refuse a baseline that no case has.

    Raises:
        UsageError: naming those that there are.
    """
    known = {name for case in cases for name in names(case)}
    if wanted and wanted not in known:
        raise UsageError(
            "no measured case is called that", where="--baseline", got=wanted, expected=nearest(wanted, known)
        )


def comparisons(courses: Sequence[Course], wanted: str, seed: int) -> list[ComparisonRecord]:
    """Compare all that were measured at the same sizes with one baseline among them; all verdicts hold together."""
    comparable: dict[object, list[Course]] = defaultdict(list)
    for course in courses:
        if course.ended is None and course.turns:
            comparable[course.comparable].append(course)
    pairs: list[tuple[Course, Course]] = []
    for members in comparable.values():
        index = chosen_baseline([course.case for course in members], wanted)
        if index is not None:
            pairs += [(members[index], course) for position, course in enumerate(members) if position != index]
    found = (_comparison(baseline, candidate, seed, len(pairs)) for baseline, candidate in pairs)
    return [item for item in found if item is not None]


def _comparison(baseline: Course, candidate: Course, seed: int, family: int) -> ComparisonRecord | None:
    base = {(turn.process, turn.round): block_time(baseline, turn) for turn in baseline.turns}
    rounds: dict[int, list[float]] = defaultdict(list)
    for turn in candidate.turns:
        if (turn.process, turn.round) in base:
            ratio = block_time(candidate, turn) / base[turn.process, turn.round]
            rounds[turn.process].append(float(np.log(ratio)))
    found = paired_ratio(rounds, seed, family)
    if found is None:
        return None
    return ComparisonRecord(
        baseline=label(baseline.case),
        candidate=label(candidate.case),
        ratio=found.ratio,
        ratio_ci=found.interval,
        verdict=found.verdict,
        rounds=found.rounds,
        processes=found.processes,
    )
