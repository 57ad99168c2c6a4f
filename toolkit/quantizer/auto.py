"""Choosing by measuring: of all candidates that keep within the budget, the fastest, if it beats the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolkit.errors import InvalidInput
from toolkit.profiler.pairing import PairedRatio
from toolkit.providers import registry
from toolkit.quantizer.economy import without_each_kind, without_kinds
from toolkit.quantizer.job import Job
from toolkit.quantizer.methods import Recipe
from toolkit.quantizer.race import race
from toolkit.quantizer.report import Trial
from toolkit.quantizer.sensitivity import within_budget
from toolkit.quantizer.trying import Bench, Candidate
from toolkit.tensors import Feeds, example_inputs

_FEEDS = 4
TIE = 1.02
"""Times that differ by less than this factor are equal here: dynamic int8, whose answers depend on what shares the
batch, has to be worth it."""


class Choice(NamedTuple):
    """Candidates worth keeping, the fastest first, and everything that was tried."""

    kept: tuple[Candidate, ...]
    tried: tuple[Trial, ...]


def choose(job: Job, bench: Bench, recipes: Sequence[Recipe]) -> Choice:
    """Try all recipes, then race those that are good enough against the float model on the target."""
    if job.can_calibrate:
        job.record()  # what is wrong with the samples is the user's to mend, not a candidate's failure
    candidates: list[Candidate] = []
    refused: list[Trial] = []
    for recipe in recipes:
        made = bench.attempt(recipe, bench.judged_for_choice)
        if isinstance(made, Candidate):
            candidates.append(made)
        else:
            refused.append(made)
    best = _best_of_groups([item for item in candidates if not item.trial.refusal or item.trial.outputs])
    candidates += [found for item in best if (found := bench.corrected(item, bench.judged_for_choice)) is not item]
    candidates += _mended(job, bench, candidates)
    good = _best_of_groups([item for item in candidates if not item.trial.refusal])
    raced = _economical(job, bench, _raced(job, good)) if good else []
    out_of_it = (item.trial for item in candidates if item not in good)
    tried = (*refused, *out_of_it, *(item.trial for item in raced))
    faster = [item for item in raced if item.trial.speed is not None and item.trial.speed.verdict == "faster"]
    return Choice(tuple(_in_order(faster)), tried)


def _in_order(faster: Sequence[Candidate]) -> list[Candidate]:
    """The fastest first; of those that take as long, within :data:`TIE`, what each row's answer depends on decides,
    then closeness to the float model."""
    ranked = sorted(faster, key=_ratio)
    if not ranked:
        return []
    equal = [item for item in ranked if _ratio(item) <= _ratio(ranked[0]) * TIE]
    equal.sort(key=lambda item: (item.recipe.method == "dynamic", -item.trial.snr_db))
    return [*equal, *ranked[len(equal) :]]


def _best_of_groups(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Of candidates that differ in their ranges alone, and so not in speed, the closest to the float model."""
    best: dict[str, Candidate] = {}
    for item in candidates:
        key = _group(item)
        if key not in best or item.trial.snr_db > best[key].trial.snr_db:
            best[key] = item
    return list(best.values())


def _mended(job: Job, bench: Bench, candidates: Sequence[Candidate]) -> list[Candidate]:
    """For each group of which nothing keeps the budget, its best one with the most harmful nodes back in float."""
    good = {_group(item) for item in candidates if not item.trial.refusal}
    failed = _best_of_groups([item for item in candidates if item.trial.outputs and _group(item) not in good])
    tried = (within_budget(job, bench, item, bench.judged_for_choice) for item in failed)
    return [item for item in tried if item is not None]


def _group(candidate: Candidate) -> str:
    return candidate.recipe.group or candidate.recipe.name


def _ratio(candidate: Candidate) -> float:
    assert candidate.trial.speed is not None
    return candidate.trial.speed.ratio


def _raced(job: Job, good: Sequence[Candidate]) -> list[Candidate]:
    """The same candidates with their speed."""
    job.say(f"measuring {len(good)} candidates against the float model on {job.target.name}")
    found = _times(job, job.runnable, {item.recipe.name: item.path for item in good})
    trials = [msgspec.structs.replace(item.trial, speed=found.get(item.recipe.name)) for item in good]
    return [msgspec.structs.replace(item, trial=trial) for item, trial in zip(good, trials, strict=True)]


def _times(job: Job, baseline: Path, files: Mapping[str, Path]) -> dict[str, PairedRatio]:
    """Time of each file over that of ``baseline`` on the target, all of them taking turns."""
    provider = registry.provider(job.target.provider)
    with ExitStack() as stack:
        first = stack.enter_context(provider.open(baseline, job.target))
        sessions = {name: stack.enter_context(provider.open(path, job.target)) for name, path in files.items()}
        return race(first, sessions, race_feeds(job))


def _economical(job: Job, bench: Bench, raced: list[Candidate]) -> list[Candidate]:
    """``raced``, its fastest static candidate measured once more beside one without what does not pay."""
    able = [item for item in raced if item.recipe.without is not None and item.trial.speed is not None]
    if not able:
        return raced
    whole = min(able, key=_ratio)
    parts = without_each_kind(job, bench, whole)
    if not parts:
        return raced
    job.say(f"measuring which of {len(parts)} kinds of nodes pay")
    found = _times(job, whole.path, {kind: item.path for kind, item in parts.items()})
    costly = [kind for kind, ratio in found.items() if ratio.verdict == "faster"]
    better = without_kinds(job, bench, whole, costly) if costly else None
    if better is None:
        return raced
    return [*(item for item in raced if item is not whole), *_raced(job, [whole, better])]


def race_feeds(job: Job) -> list[Feeds]:
    """A few single samples of one shape: real ones where there are some that feed every input, else random ones."""
    data = job.check_data
    if data is None or data.state:
        return [example_inputs(job.facts.inputs, seed=seed) for seed in range(_FEEDS)]
    try:
        found = [batch.feeds for batch in data.batched(1).take(0, _FEEDS)]
    except InvalidInput:  # an input of a fixed size beside a dynamic batch: there are no single samples
        found = [batch.feeds for batch in islice(data, _FEEDS)]
    # Engines prepare anew for each shape; what that costs is not what is asked here.
    return [feeds for feeds in found if _shapes(feeds) == _shapes(found[0])]


def _shapes(feeds: Feeds) -> list[tuple[int, ...]]:
    return [array.shape for array in feeds.values()]
