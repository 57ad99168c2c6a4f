"""``toolkit.quantize``: a narrower model for one target, checked against the float model, or no file at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from toolkit.errors import AccuracyError, NotApplicable, ParityError, UsageError
from toolkit.files import existing_file, sha256, writable_output
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model
from toolkit.providers import registry
from toolkit.providers.placement import PlacementRules, placement_rules
from toolkit.quantizer.auto import choose
from toolkit.quantizer.choices import BITS, METHODS, OBSERVERS, Bits, Method, Observer
from toolkit.quantizer.job import Job
from toolkit.quantizer.methods import Choices, Recipe, recipes
from toolkit.quantizer.plan import LeftInFloat
from toolkit.quantizer.report import Accuracy, QuantizeReport, Trial
from toolkit.quantizer.samples import Samples
from toolkit.quantizer.sensitivity import within_budget
from toolkit.quantizer.trying import NO_NODE, Bench, Candidate
from toolkit.targets import Target
from toolkit.tensors import nearest


def quantize(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    target: str | Target = "cpu",
    method: Method = "auto",
    observer: Observer = "minmax",
    calibration: Samples | None = None,
    data: Samples | None = None,
    max_drop: float = 1.0,
    bits: Bits = 8,
    placement: str = "",
    keep_float: tuple[str, ...] = (),
    state: Mapping[str, str] | None = None,
    samples: int | None = None,
    memory_limit_bytes: int | None = None,
    record: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> QuantizeReport:
    """Lower ``source`` for ``target`` and write it to ``output``, if it passes.

    Args:
        source: a float ONNX file.
        output: written whole, or not at all.
        target: a name, a TOML file, ``provider[:device]``, or a :class:`Target`.
        method: "auto" tries what makes sense, measures it on the target, and keeps what is faster within the budget.
        observer: how static int8 takes ranges from what calibration saw.
        calibration: samples for static int8 (a path, a dataset, an iterable), or a calibration record (``.json``).
        data: samples to judge by. With labels, accuracy decides; a half that no choice was made on gives the figure in
            the report. Also calibrates where ``calibration`` is not given.
        max_drop: points of the headline metric that may be lost.
        bits: of weight-only.
        placement: a variant of the provider's table instead of its first one.
        keep_float: names of nodes that shall not be quantized to static int8.
        state: model input to the output of the previous step that feeds it.
        samples: calibrate on the first so many.
        memory_limit_bytes: for the tensors that calibration looks at in one run.
        record: where to write the calibration record.
        progress: called with what is being done.

    Raises:
        AccuracyError: more was lost than allowed.
        ParityError: the result is not finite, or nothing like the float model.
        NotApplicable: the target does not take such files.
        UsageError: bad input; every kind has its subclass and one clear line.
    """
    source, output = existing_file(source, "model file"), writable_output(output)
    record = None if record is None else writable_output(record)
    _check_words(method, observer, bits, max_drop)
    chosen = target if isinstance(target, Target) else registry.target(target)
    rules = _rules(chosen, method)
    with tempfile.TemporaryDirectory(prefix="toolkit-quantize-") as folder:
        job = Job(
            source, chosen, rules, calibration=calibration, data=data, state=state or {}, samples=samples,
            memory_limit_bytes=memory_limit_bytes, chooses=method in ("auto", "static"),
            folder=Path(folder), say=progress or _silent,
        )  # fmt: skip
        with closing(job):
            job.prepared(0)  # refuses a model that is quantized already, before any work is done
            bench = Bench(job, max_drop)
            wanted = recipes(method, job, Choices(observer, bits, placement, tuple(keep_float)))
            kept = _automatic(job, bench, wanted) if method == "auto" else _single(job, bench, wanted[0])
            if record is not None:
                job.record().write(record)
            return _written(job, kept, output)


def _silent(_: str) -> None:
    pass


def _check_words(method: str, observer: str, bits: int, max_drop: float) -> None:
    for option, word, known in (("--method", method, METHODS), ("--observer", observer, OBSERVERS)):
        if word not in known:
            raise UsageError("unknown choice", where=option, got=word, expected=nearest(word, known))
    if bits not in BITS:
        raise UsageError("unknown choice", where="--bits", got=bits, expected="8 or 4")
    if not max_drop >= 0:
        raise UsageError("a budget is 0 or more points", where="--max-drop", got=max_drop)


def _rules(target: Target, method: Method) -> PlacementRules:
    """The placement rules of the target's provider.

    Raises:
        NotApplicable: it takes no quantized files.
        ProviderUnavailable: "auto" has to measure on it, and it is not there.
    """
    provider = registry.provider(target.provider)
    if provider.placement_rules is None:
        raise NotApplicable(f"{provider.name} takes no quantized files", where=target.name)
    if method == "auto":
        provider.require(target)
    return placement_rules(provider.placement_rules)


class _Kept(NamedTuple):
    """What is written: a candidate, or the float model where that is None."""

    candidate: Candidate | None
    accuracy: Accuracy | None
    tried: tuple[Trial, ...]
    notes: tuple[str, ...]


def _single(job: Job, bench: Bench, recipe: Recipe) -> _Kept:
    """The one candidate of a method that was asked for, or an error."""
    judge = bench.judged_for_choice if job.has_labels and recipe.without is not None else bench.as_made
    candidate = bench.corrected(judge(bench.make(recipe)), judge)
    reason = candidate.trial.refusal
    if reason == NO_NODE:
        left = sorted({item.reason for item in candidate.left})
        raise UsageError(NO_NODE, where=job.source, got="; ".join(left[:3]) or None, next_step="use another --method")
    if reason:
        candidate = within_budget(job, bench, candidate, judge) or candidate
    reason = candidate.trial.refusal
    if reason and candidate.trial.accuracy is None:
        raise ParityError(f"{recipe.name} is not usable", where=job.source, got=reason)
    judged = _judged(job, bench, candidate)
    if reason := reason or ("" if judged.by_chance else judged.over):
        raise AccuracyError(f"{recipe.name} loses too much", where=job.source, got=reason)
    return _Kept(candidate, judged.accuracy, (), tuple(filter(None, [judged.by_chance])))


def _automatic(job: Job, bench: Bench, wanted: list[Recipe]) -> _Kept:
    """The fastest candidate that keeps the budget on samples that nothing was chosen on, else the float model."""
    choice = choose(job, bench, wanted)
    notes = [] if job.can_calibrate else ["static int8 was not tried: it needs samples (--calibration)"]
    given_up: list[_Judged] = []
    for candidate in choice.kept:
        found = _judged(job, bench, candidate)
        if not found.over:
            return _Kept(candidate, found.accuracy, choice.tried, tuple(notes))
        given_up.append(found)
    for found in given_up:  # only where nothing keeps the budget without an excuse
        if found.by_chance:
            return _Kept(found.candidate, found.accuracy, choice.tried, (*notes, found.by_chance))
    for found in given_up:
        notes.append(f"{found.candidate.recipe.name} was given up on samples it was not chosen by: {found.over}")
    best = min((trial.speed.ratio for trial in choice.tried if trial.speed is not None), default=None)
    figures = "" if best is None else f"; the fastest usable candidate took {best:.2f} times as long"
    return _Kept(None, None, choice.tried, (f"nothing beat the float model on {job.target.name}{figures}", *notes))


class _Judged(NamedTuple):
    """A candidate on the part of the data that nothing was chosen on: both reasons are "" within the budget."""

    candidate: Candidate
    accuracy: Accuracy | None
    over: str
    by_chance: str


def _judged(job: Job, bench: Bench, candidate: Candidate) -> _Judged:
    if job.parts is None or not job.has_labels:
        return _Judged(candidate, None, "", "")
    accuracy = bench.accuracy(candidate, job.parts.report, unseen=job.parts.disjoint)
    over = bench.over_budget(accuracy)
    return _Judged(candidate, accuracy, over, bench.by_chance(candidate, accuracy, job.parts.report) if over else "")


def _written(job: Job, kept: _Kept, output: Path) -> QuantizeReport:
    """Write the model that is kept and say what it is."""
    candidate = kept.candidate
    if candidate is None:
        save_model(load_model(job.runnable), output)
        trial, notes = Trial(name=job.facts.precision, precision=job.facts.precision), kept.notes
        left: tuple[LeftInFloat, ...] = ()
        opset = job.facts.opset
    else:
        save_model(load_model(candidate.path), output)
        prepared = job.prepared(candidate.recipe.opset)
        trial, left, opset = candidate.trial, candidate.left, prepared.opset
        notes = (*prepared.notes, *candidate.notes, *_check_note(job, candidate), *kept.notes)
    record = job.calibrated
    return QuantizeReport(
        source=str(job.source),
        output=str(output),
        target=job.target.name,
        checked_on=job.target.name if candidate is None else candidate.target.name,
        method=trial.name,
        observer="" if candidate is None else candidate.recipe.observer,
        precision=trial.precision,
        calibration="" if record is None else record.data,
        calibration_samples=0 if record is None else record.samples,
        opset_before=job.facts.opset,
        opset_after=opset,
        size_bytes_before=job.facts.size_bytes,
        size_bytes_after=facts(output).size_bytes,
        quantized=trial.quantized,
        left=left,
        roundings=() if candidate is None else candidate.roundings,
        outputs=trial.outputs,
        accuracy=kept.accuracy,
        speed=trial.speed,
        candidates=kept.tried,
        notes=(*job.notes, *notes),
        sha256=sha256(output),
    )


def _check_note(job: Job, candidate: Candidate) -> tuple[str, ...]:
    if candidate.target is job.target:
        return ()
    return (f"{job.target.name} is not available here: checked on {candidate.target.name}, speed not measured",)
