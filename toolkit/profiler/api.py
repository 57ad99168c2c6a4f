"""``toolkit.profile``: measure models on targets, side by side."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from toolkit.errors import UsageError
from toolkit.profiler.assembly import check_baseline, chosen_baseline, comparisons, measured_record, skipped_record
from toolkit.profiler.beyond import with_costs
from toolkit.profiler.cases import Case, Scenario, Skipped, label
from toolkit.profiler.costs import Machine, machine_of
from toolkit.profiler.environment import available_memory_bytes, environment
from toolkit.profiler.grouping import groups
from toolkit.profiler.history import record_run
from toolkit.profiler.identity import identified
from toolkit.profiler.interference import between, usage
from toolkit.profiler.interrupts import interrupts
from toolkit.profiler.models import Model
from toolkit.profiler.models import models as described
from toolkit.profiler.offline import Search, searched
from toolkit.profiler.operators import time_operators
from toolkit.profiler.planning import Wish, plan, wanted_targets
from toolkit.profiler.process import ProcessWorker
from toolkit.profiler.reading import read_report
from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.profiler.resuming import courses, request
from toolkit.profiler.schedule import Course, OnProgress, Plan, Progress, Run, measure
from toolkit.profiler.stopping import Narrow
from toolkit.profiler.sweeps import WIDTH, all_settings, check_scenarios, sweep_records, widened
from toolkit.profiler.throttling import doubts, held
from toolkit.targets import Target

# Named, not imported: it lies above this package, and only the worker that opens a source loads it.
OPENER = "toolkit.exporter.sources:open_module"

ModelText = str | os.PathLike[str] | Model


@interrupts()
def profile(
    models: ModelText | Sequence[ModelText],
    targets: str | Target | Sequence[str | Target] = ("cpu",),
    *,
    batches: Sequence[int] | None = None,
    dims: Mapping[str, int] | None = None,
    scenarios: Sequence[Scenario] = ("single-stream",),
    streams: int = 4,
    sweeps: Mapping[str, Sequence[int]] | None = None,
    machine: str | os.PathLike[str] | Machine | None = None,
    budget_s: float = 30.0,
    ci_width: float | None = None,
    baseline: str = "",
    data: str | os.PathLike[str] | None = None,
    processes: int = 3,
    seed: int = 0,
    opener: str = OPENER,
    on_progress: OnProgress | None = None,
    operators: bool = False,
    show_output: bool = False,
    resume: str | os.PathLike[str] | ProfileReport | None = None,
    history: str | os.PathLike[str] | bool = False,
) -> ProfileReport:
    """Measure each model on each target and compare them with one baseline.

    Every case runs in a worker process of its own; all take turns in short blocks until the budget is spent.

    Args:
        models: ONNX files, bundles (all their variants are measured), or sources such as "zoo:cnn" for torch targets.
        targets: names, files or :class:`Target`; "all" takes every shipped target and lists those that are not here.
        batches: sizes of the batch dim; None for the models' own, which is 1 where it is free.
        dims: sizes of other named dims; what is not given gets a small default.
        scenarios: "single-stream"; "multi-stream", ``streams`` calls at the same time; "offline", the best batch.
        sweeps: values of "batch", "threads", "width" or of a dim, each varied alone.
        machine: what the machine costs and draws, or the file that says so.
        budget_s: seconds of measuring for all cases together; starting processes and opening models come on top.
        ci_width: stop before that once the 99 % intervals of all medians and ratios are no wider, from end to end,
            than this share of their values.
        baseline: target, model or case that others are compared with; "" for torch eager if it is there, else the
            first.
        data: real samples to feed (docs/data.md); None for random ones.
        processes: how many fresh processes each case is measured in, at least.
        seed: of inputs, of the order of turns and of resampling.
        opener: ``package.module:function`` that opens sources.
        on_progress: called between blocks.
        operators: also find out where the time of each case goes, in a run of its own.
        show_output: let through what engines print.
        resume: a report, or the file of one, whose run goes on for another ``budget_s``: it has to be the same run.
        history: True adds the run to the user's history, a path to the one there; by default a library call writes
            nothing into the user's home.

    Returns:
        A report. Cases that failed or could not run are in it, with the reason. After Ctrl-C it holds what was
        measured.

    Raises:
        ProviderUnavailable: a target that was named is not on this machine.
        UsageError: a model, target, dim or baseline that makes no sense; a report to resume that holds another run.
    """
    _check_numbers(batches, budget_s, ci_width, processes, seed)
    check_scenarios(scenarios, streams, sweeps or {})
    costs = machine_of(machine)
    earlier = _earlier(resume)
    asked = [targets] if isinstance(targets, str | Target) else list(targets)
    found_targets, unavailable = wanted_targets(asked)
    wanted = all_settings(batches, dims or {}, sweeps or {}, scenarios, streams)
    wish = Wish(settings=wanted, data=os.fspath(data or ""), opener=opener, seed=seed)
    listed = _listed(models)
    settings: dict[str, Any] = {
        "budget_s": budget_s, "processes": processes, "seed": seed, "baseline": baseline, "data": wish.data or "random",
        "scenarios": list(scenarios), "streams": streams, "sweeps": {k: list(v) for k, v in (sweeps or {}).items()},
    } | ({} if ci_width is None else {"ci_width": ci_width})  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="toolkit-profile-") as folder:
        found_models = identified(widened(described(listed), (sweeps or {}).get(WIDTH, ())))
        planned = plan(found_models, found_targets, unavailable, wish, Path(folder))
        check_baseline([item for item in planned if isinstance(item, Case)], baseline)
        before, surroundings, started = usage(), environment(), datetime.now(UTC).isoformat(timespec="seconds")
        hindered, began, tell = held(), time.monotonic(), on_progress or _silent
        start = partial(ProcessWorker, show_output=show_output)
        planned, searches, stopped = searched(planned, start, available_memory_bytes(), tell, earlier)
        cases = [item for item in planned if isinstance(item, Case)]
        known = None if earlier is None else courses(earlier, planned, surroundings, found_targets, settings)
        run = Run(tuple(known or map(Course, cases)), interrupted=True)
        if not stopped:
            run = measure(
                cases,
                groups([case.size_bytes for case in cases], _anchors(cases, baseline), available_memory_bytes()),
                Plan(budget_s=budget_s, processes=processes, seed=seed),
                start,
                tell,
                enough=None if ci_width is None else Narrow(ci_width, processes, baseline, seed),
                earlier=known,
            )
        interference = between(before, usage())
        held_back = doubts(hindered, held(), time.monotonic() - began)
        records, peaks = _records(planned, run, searches, costs), []
        if operators and not run.interrupted:
            found = time_operators([_case(item) for item in planned], records, start, tell)
            records, peaks, run = found.cases, found.peaks, msgspec.structs.replace(run, interrupted=found.interrupted)
    warnings = [*(earlier.warnings if earlier else []), *(interference.doubts if interference else [])]
    report = ProfileReport(
        environment=surroundings,
        settings=settings | _spent_before(earlier),
        cases=records,
        comparisons=comparisons(run.courses, baseline, seed),
        warnings=[*warnings, *held_back],
        interrupted=run.interrupted,
        sweeps=sweep_records(run.courses, seed),
        request=request(_texts(listed), asked, found_targets, batches, dims or {}),
        time_utc=started,
        peaks=peaks,
    )
    record_run(report, history)
    return report


def _earlier(resume: str | os.PathLike[str] | ProfileReport | None) -> ProfileReport | None:
    return resume if resume is None or isinstance(resume, ProfileReport) else read_report(resume)


def _spent_before(earlier: ProfileReport | None) -> dict[str, float]:
    """The budgets of the runs that this one went on with, so that nobody takes the last one for all there was."""
    if earlier is None:
        return {}
    return {"earlier_budget_s": earlier.settings.get("budget_s", 0) + earlier.settings.get("earlier_budget_s", 0)}


def _case(item: Case | Skipped) -> Case:
    return item.case if isinstance(item, Skipped) else item


def _silent(progress: Progress) -> None:
    pass


def _listed(models: ModelText | Sequence[ModelText]) -> list[ModelText]:
    items = [models] if isinstance(models, str | os.PathLike | Model) else list(models)
    if not items:
        raise UsageError("no model to measure")
    return items


def _texts(items: Sequence[ModelText]) -> list[str]:
    """What names the models; one that was made for a sweep is made again from its source."""
    plain = [item for item in items if not (isinstance(item, Model) and item.width)]
    return [item.path if isinstance(item, Model) else os.fspath(item) for item in plain]


def _check_numbers(
    batches: Sequence[int] | None, budget_s: float, ci_width: float | None, processes: int, seed: int
) -> None:
    if budget_s <= 0:
        raise UsageError("the budget is a positive time", where="--budget", got=budget_s)
    if ci_width is not None and not 0 < ci_width < 1:
        raise UsageError("the width of an interval is a share", where="--ci-width", got=ci_width, expected="e.g. 2%")
    if processes < 1:
        raise UsageError("each case needs a process", where="--processes", got=processes)
    if seed < 0:
        raise UsageError("a seed is 0 or more", where="--seed", got=seed)
    for batch in batches or ():
        if batch < 1:
            raise UsageError("a batch holds one sample or more", where="--batch", got=batch)


def _anchors(cases: Sequence[Case], baseline: str) -> list[int]:
    """Indices of the likely baselines: one per group and batch. Only opening a source tells its sizes for certain."""
    members: dict[tuple[object, ...], list[int]] = {}
    for index, case in enumerate(cases):
        batch = None if case.scenario == "offline" else case.batch
        members.setdefault((case.group, batch, case.scenario, case.streams), []).append(index)
    found = []
    for indices in members.values():
        chosen = chosen_baseline([cases[index] for index in indices], baseline)
        if chosen is not None:
            found.append(indices[chosen])
    return found


def _records(
    planned: Sequence[Case | Skipped], run: Run, searches: Mapping[str, Search], costs: Machine
) -> list[CaseRecord]:
    measured = iter(run.courses)
    found = []
    for item in planned:
        if isinstance(item, Skipped):
            found.append(skipped_record(item))
        else:
            course = next(measured)
            found.append(with_costs(measured_record(course), course, searches.get(label(item)), costs))
    return found
