"""Sweeps: one variable of a model or a target takes several values, everything else stays.

A sweep's points are cases like any other, so they take turns with each other. The variable is ``batch``, ``threads``,
``width`` (of a source whose factory takes one), or the name of a dim.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import msgspec

from toolkit.errors import UsageError
from toolkit.profiler.beyond import block_time
from toolkit.profiler.cases import Case, Scenario, label
from toolkit.profiler.curves import Blocks, curve
from toolkit.profiler.models import Model
from toolkit.profiler.records import SweepRecord
from toolkit.profiler.schedule import Course
from toolkit.targets import Target
from toolkit.tensors import nearest

BATCH, THREADS, WIDTH = "batch", "threads", "width"
Sweeps = Mapping[str, Sequence[int]]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What one case sets beside its model and target; ``points`` says where on which sweep it lies.

    ``threads`` 0 leaves the target's own; ``width`` 0 leaves the model's own.
    """

    batch: int | None = None
    dims: dict[str, int] = {}
    threads: int = 0
    width: int = 0
    scenario: Scenario = "single-stream"
    streams: int = 1
    points: dict[str, float] = {}

    def on(self, target: Target) -> Target:
        """``target`` with this many threads, which its name then says."""
        if not self.threads:
            return target
        return msgspec.structs.replace(target, name=f"{target.name}[threads={self.threads}]", threads=self.threads)


MOST_STREAMS = 256
"""Threads of one process; more of them are measured waiting for the interpreter's lock."""


def check_scenarios(scenarios: Sequence[str], streams: int, sweeps: Sweeps) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: an unknown scenario, no stream, or a sweep without points or with sizes below 1.
    """
    for name in scenarios:
        if name not in get_args(Scenario):
            expected = nearest(name, get_args(Scenario))
            raise UsageError("no such scenario", where="--scenario", got=repr(name), expected=expected)
    if not scenarios:
        raise UsageError("no scenario to measure", where="--scenario", expected=", ".join(get_args(Scenario)))
    if not 1 <= streams <= MOST_STREAMS:
        raise UsageError("cannot be measured", where="--streams", got=streams, expected=f"1 to {MOST_STREAMS}")
    for name, values in sweeps.items():
        if not values or min(values) < 1:
            raise UsageError(f"{name} takes sizes of 1 or more", where="--sweep", got=list(values))


def all_settings(
    batches: Sequence[int] | None, dims: Mapping[str, int], sweeps: Sweeps, scenarios: Sequence[Scenario], streams: int
) -> list[Setting]:
    """Every setting that is asked for: scenarios × batches × the points of each sweep, or one without any.

    Settings that two sweeps share are measured once. Offline finds its own batch, whatever ``batches`` says.
    """
    found: dict[bytes, Setting] = {}
    for scenario in scenarios:
        count = streams if scenario == "multi-stream" else 1
        for batch in (None,) if scenario == "offline" else batches or (None,):
            plain = Setting(batch=batch, dims=dict(dims), scenario=scenario, streams=count)
            for setting in _points(plain, sweeps):
                key = msgspec.json.encode(msgspec.structs.replace(setting, points={}), order="sorted")
                points = {**(found[key].points if key in found else {}), **setting.points}
                found[key] = msgspec.structs.replace(setting, points=points)
    return list(found.values())


def _points(plain: Setting, sweeps: Sweeps) -> Iterator[Setting]:
    swept = {name: values for name, values in sweeps.items() if name != BATCH or plain.scenario != "offline"}
    if not swept:
        yield plain
    for name, values in swept.items():
        for value in values:
            yield _moved(plain, name, value)


def _moved(plain: Setting, name: str, value: int) -> Setting:
    points = {name: float(value)}
    if name == BATCH:
        return msgspec.structs.replace(plain, batch=value, points=points)
    if name == THREADS:
        return msgspec.structs.replace(plain, threads=value, points=points)
    if name == WIDTH:
        return msgspec.structs.replace(plain, width=value, points=points)
    return msgspec.structs.replace(plain, dims={**plain.dims, name: value}, points=points)


def widened(models: Sequence[Model], widths: Sequence[int]) -> list[Model]:
    """``models``, each source once per width; what has a width already, such as an exported one, stays.

    Raises:
        UsageError: a file is among them, whose width is what it is.
    """
    if not widths:
        return list(models)
    found = []
    for model in models:
        if model.width:
            found.append(model)
        elif model.kind == "source":
            found += [_widened(model, width) for width in widths]
        else:
            raise UsageError(
                "a file has one width", where=model.name, expected="a source, as zoo:NAME or FILE.py:FACTORY",
                next_step="sweep the width of the source that it was exported from",
            )  # fmt: skip
    return found


def _widened(model: Model, width: int) -> Model:
    join = "&" if "?" in model.path else "?"
    text = f"{model.path}{join}{WIDTH}={width}"
    return msgspec.structs.replace(
        model, name=f"{model.name}{join}{WIDTH}={width}", path=text, width=width, family=model.name,
        group=f"{model.group}{WIDTH}={width}",
    )  # fmt: skip


def sweep_records(courses: Sequence[Course], seed: int) -> list[SweepRecord]:
    """One record per model, target and variable, and per batch and scenario where there are several."""
    members: dict[tuple[object, ...], list[Course]] = defaultdict(list)
    for course in courses:
        for variable in course.case.points:
            members[_key(course, variable)].append(course)
    return [_record(str(key[0]), found, seed) for key, found in members.items()]


def _key(course: Course, variable: str) -> tuple[object, ...]:
    """Equal for points of one sweep."""
    case = course.case
    batch = None if variable == BATCH or case.scenario == "offline" else case.batch
    others = tuple(sorted((name, size) for name, size in case.dims.items() if name != variable))
    return variable, case.family, case.base, case.scenario, case.streams, batch, others


def _record(variable: str, courses: Sequence[Course], seed: int) -> SweepRecord:
    measured = sorted(
        (course for course in courses if course.ended is None and course.turns),
        key=lambda course: course.case.points[variable],
    )
    first = courses[0].case
    found = curve([(course.case.points[variable], _blocks(course)) for course in measured], seed)
    return SweepRecord(
        model=first.family,
        target=first.base,
        variable=variable,
        points=[(course.case.points[variable], label(course.case)) for course in measured],
        exponent=found.exponent,
        exponent_ci=found.interval,
        notes=[*_circumstances(variable, first), found.note],
    )


def _circumstances(variable: str, case: Case) -> Iterator[str]:
    """What else was set, where it is not the default: there may be a sweep for each."""
    if case.scenario == "offline":
        yield "offline: time per sample at the best batch of each point"
        return
    if case.streams > 1:
        yield f"{case.streams} streams"
    if case.batch is not None and variable != BATCH:
        yield f"batch {case.batch}"


def _blocks(course: Course) -> Blocks:
    """What is compared of each block."""
    found: dict[int, list[float]] = defaultdict(list)
    for turn in course.turns:
        found[turn.process].append(block_time(course, turn))
    return found
