"""``batching=`` and ``instances=`` of :func:`toolkit.load`: what was asked for, what may be shared, what pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import toolkit.machine as machine
from toolkit.errors import NotApplicable, ToolkitError, UsageError
from toolkit.providers.session import Engine, Session
from toolkit.runtime.batching import Batching, BatchingEngine
from toolkit.runtime.calls import Layout
from toolkit.runtime.paying import LEAST_GAIN, SHORTEST_S, Curve, batch_curve, throughputs
from toolkit.runtime.rows import Rows, example_sizes, fixed_reason, input_axes, prove_rows
from toolkit.targets import Target
from toolkit.tensors import DEFAULT_LENGTH, Feeds, complete_dims, example_inputs

BatchingWish = Literal["off", "auto"] | Batching
InstancesWish = Literal["auto"] | int
# Of sequences while batches are measured.
_LENGTH = 4
# Opens the model again for calls side by side: the target, and one engine for each call; None where that is senseless.
Opener = Callable[[int], tuple[Target, Sequence[Engine]] | None]


def check_wishes(batching: BatchingWish, instances: InstancesWish) -> None:
    """Refuse what is no wish at all, before anything is opened.

    Raises:
        UsageError: naming it.
    """
    if not isinstance(batching, Batching) and batching not in ("off", "auto"):
        raise UsageError("no such batching", got=repr(batching), expected="'off', 'auto' or Batching(…)")
    if instances != "auto" and (not isinstance(instances, int) or isinstance(instances, bool) or instances < 1):
        raise UsageError("no such number of instances", got=repr(instances), expected="'auto', or 1 or more")


def share(
    session: Session, batching: BatchingWish, instances: InstancesWish, opener: Opener, known: Rows | None = None
) -> None:
    """Let concurrent callers of ``session`` share batches and instances as asked.

    Args:
        session: just opened.
        batching, instances: see :func:`toolkit.load`.
        opener: opens the model for calls side by side.
        known: what is on record about the model's rows; without it they are tried.

    Raises:
        NotApplicable: batching or instances were asked for and cannot be had.
    """
    if isinstance(instances, int) and instances > 1:
        _use_instances(session, opener, instances)
    if isinstance(batching, Batching):
        _use_batching(session, batching, known or prove_rows(session))
    if batching == "auto" or instances == "auto":
        _choose(session, opener if instances == "auto" else lambda _: None, batching == "auto", known)


def _use_instances(session: Session, opener: Opener, count: int) -> None:
    found = opener(count)
    if found is None:
        raise NotApplicable(
            f"{session.provider} does not run instances side by side", where=session.model, next_step="instances=1"
        )
    session.engine.close()
    session.target = found[0]
    session.replace_engine(BatchingEngine(found[1], _layout(session)))
    session.notes += (f"instances: {count}, as asked",)


def _use_batching(session: Session, settings: Batching, rows: Rows) -> None:
    if not rows.independent:
        raise NotApplicable(
            "calls cannot share batches",
            where=session.model,
            got=rows.reason,
            next_step='batching="auto" leaves it off where it cannot be',
        )
    session.replace_engine(BatchingEngine(_engines(session.engine), _layout(session, rows), settings))
    session.notes += (f"batching: up to {settings.max_size} rows, as asked",)


def _engines(engine: Engine) -> Sequence[Engine]:
    return engine.engines if isinstance(engine, BatchingEngine) else (engine,)


def _layout(session: Session, rows: Rows | None = None) -> Layout:
    names = [spec.name for spec in session.inputs]
    return Layout(names, {}, {}) if rows is None else Layout(names, rows.inputs, rows.outputs)


def _choose(session: Session, opener: Opener, batches: bool, known: Rows | None) -> None:
    """Measure the ways of sharing that are allowed; take one that is better than none by enough."""
    try:
        row = example_inputs(session.inputs, _small_sizes(session))
    except ToolkitError as exc:
        session.notes += (f"nothing is shared: no example inputs run ({exc})",)
        return
    curve = _curve(session, row, batches)
    layout: Layout | None = None
    if batches:
        reason = _senseless(session, curve)
        rows = Rows(False, reason) if reason else known or prove_rows(session)
        if rows.independent:
            layout = _layout(session, rows)
        else:
            session.notes += (f"batching is off: {rows.reason}",)
    cores = machine.usable_cores()
    side_by_side = opener(cores) if cores > 1 else None
    _race(session, row, curve, layout, side_by_side)


def _curve(session: Session, row: Feeds, batches: bool) -> Curve:
    can = batches and not fixed_reason(session.inputs)
    axes = input_axes(session.inputs) if can else {}
    return batch_curve(session.engine.run, row, axes, Batching().max_size if can else 1)


def _senseless(session: Session, curve: Curve) -> str:
    """Why no batch needs to be tried; empty if it may pay."""
    if curve.seconds[1] < SHORTEST_S:
        return f"a call takes {curve.seconds[1] * 1e6:.0f} µs, less than waking another thread"
    if reason := fixed_reason(session.inputs):
        return reason
    if curve.gain < LEAST_GAIN:
        return f"a batch makes a row {curve.gain:.2f} times as quick, which is too little to gain"
    return ""


def _small_sizes(session: Session) -> dict[str, int]:
    """Sizes at which the model runs, short where it takes sequences: there batches pay, and measuring takes least."""
    usual = complete_dims(session.inputs)
    try:
        return example_sizes(session, {dim: _LENGTH for dim, size in usual.items() if size == DEFAULT_LENGTH})
    except ToolkitError:
        return example_sizes(session)


def _race(
    session: Session,
    row: Feeds,
    curve: Curve,
    layout: Layout | None,
    side_by_side: tuple[Target, Sequence[Engine]] | None,
) -> None:
    plain, own = session.engine, _engines(session.engine)
    ways: dict[str, Engine] = {}
    room = None if layout is None else _room(layout, row, curve)
    if layout is not None:
        ways["batching"] = BatchingEngine(own, layout, room=room)
    if side_by_side is not None:
        if len(_distinct(side_by_side[1])) == 1:
            ways["instances, no queue"] = side_by_side[1][0]
        if curve.seconds[1] >= SHORTEST_S:
            ways["instances"] = BatchingEngine(side_by_side[1], _layout(session))
        if layout is not None:
            ways["batching and instances"] = BatchingEngine(side_by_side[1], layout, room=room)
    if not ways:
        return
    speeds = throughputs({"": plain.run, **{name: way.run for name, way in ways.items()}}, row, curve.seconds[1])
    chosen = ""
    for name in ways:
        if speeds[name] >= LEAST_GAIN * speeds[chosen]:
            chosen = name
    taken = side_by_side if "instances" in chosen else None
    for engine in _distinct(own if taken else side_by_side[1] if side_by_side else ()):
        engine.close()
    if chosen:
        session.target = taken[0] if taken else session.target
        session.replace_engine(ways[chosen])
    session.notes += (_note(chosen, speeds, curve, len(taken[1]) if taken else 1),)


def _room(layout: Layout, row: Feeds, curve: Curve) -> Callable[[int], int]:
    """Rows that a batch may have, by the elements of a row.

    So many elements in all as were measured to do well; one row where two would be more than it takes to keep the
    engine busy, as with long sequences.
    """
    measured = layout.describe(row)[2]

    def room(own: int) -> int:
        return curve.most * measured // own if 2 * own <= curve.enough * measured else 1

    return room


def _distinct(engines: Sequence[Engine]) -> list[Engine]:
    return list({id(engine): engine for engine in engines}.values())


def _note(chosen: str, speeds: dict[str, float], curve: Curve, instances: int) -> str:
    listed = ", ".join(f"{name or 'nothing shared'} {speed:.0f}" for name, speed in speeds.items())
    what = chosen or "nothing is shared"
    if "batching" in chosen:
        what += f", up to {curve.most} rows of the size measured"
    if "instances" in chosen:
        what += f", {instances} instances"
    return f"{what}: measured calls per second of concurrent callers: {listed}"
