"""Making one candidate, and finding out whether it is any good: written, opened, compared, scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import final

import msgspec

from toolkit.data import Dataset
from toolkit.errors import EngineError, InvalidModel, NotApplicable, ParityError, ToolkitError
from toolkit.evaluator.paired import paired
from toolkit.graph.facts import facts
from toolkit.graph.files import save_model
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.quantizer.accuracy import compare, score
from toolkit.quantizer.fidelity import fidelity, refusal
from toolkit.quantizer.job import Job
from toolkit.quantizer.lowering.lowered import Rounding
from toolkit.quantizer.methods import Recipe
from toolkit.quantizer.plan import LeftInFloat
from toolkit.quantizer.report import Accuracy, Trial, worst_snr_db
from toolkit.targets import Target

METADATA_KEY = "toolkit.quantization"
NO_NODE = "no node of this model can be narrowed this way"
SMALLEST_SNR_DB = 20.0
"""What "auto" asks of a candidate where there are no labels to ask; source: issue 3, models with random weights."""

LEAST_CHANCE = 0.2
"""A loss on few samples is chance if a model as good as the float one shows it at least this often. High, since it is
the loss that is to be believed in doubt."""


class Candidate(msgspec.Struct, frozen=True):
    """A trial with what is needed to keep it: its file (the model itself is not kept in memory), and where it ran.

    Attributes:
        nodes: those that were narrowed and could be left in float.
        roundings: how well 8 bits hold each activation, the worst first.
    """

    recipe: Recipe
    trial: Trial
    path: Path
    target: Target
    left: tuple[LeftInFloat, ...]
    notes: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    roundings: tuple[Rounding, ...] = ()


@final
class Bench:
    """Tries recipes for one job.

    Args:
        max_drop: points of the headline metric that may be lost, where there are labels.
    """

    def __init__(self, job: Job, max_drop: float) -> None:
        self._job, self._max_drop = job, max_drop
        self._made = 0

    def make(self, recipe: Recipe) -> Candidate:
        """Make a candidate and compare its outputs with the float model's.

        Raises:
            ToolkitError: it could not be made.
        """
        self._made += 1
        path = self._job.folder / f"{self._made}.onnx"  # names may repeat: two kinds of nodes with as many in float
        target = self._job.check_target(recipe.precision)
        reference = self._job.reference(target.provider)  # first, so that a float model it cannot open is the finding
        self._job.say(f"making {recipe.name}")
        lowered = recipe.lower()
        blank = Trial(name=recipe.name, precision=recipe.precision, quantized=lowered.quantized)
        if not lowered.quantized:
            none = msgspec.structs.replace(blank, refusal=NO_NODE)
            return Candidate(recipe, none, path, target, lowered.left, lowered.notes)
        lowered.model.metadata_props[METADATA_KEY] = _provenance(recipe, self._job)
        save_model(lowered.model, path)
        self._job.say(f"checking {recipe.name}")
        trial = msgspec.structs.replace(blank, size_bytes=facts(path).size_bytes)
        try:
            with self.open(path, target) as session:
                outputs = fidelity(reference, session)
        except ParityError as exc:
            trial = msgspec.structs.replace(trial, refusal=str(exc))
        else:
            trial = msgspec.structs.replace(trial, outputs=outputs, refusal=refusal(outputs, recipe.precision))
        return Candidate(
            recipe, trial, path, target, lowered.left, lowered.notes, lowered.nodes, lowered.roundings
        )  # fmt: skip

    def attempt(self, recipe: Recipe, judge: Callable[[Candidate], Candidate]) -> Candidate | Trial:
        """The candidate, judged, or the trial of one that could not be made."""
        blank = Trial(name=recipe.name, precision=recipe.precision)
        if not self._job.target.allows(recipe.precision):
            reason = f"{self._job.target.name} does not allow {recipe.precision} files"
            return msgspec.structs.replace(blank, refusal=reason)
        try:
            return judge(self.make(recipe))
        except (NotApplicable, InvalidModel, EngineError) as exc:
            return msgspec.structs.replace(blank, refusal=str(exc))

    def corrected(self, candidate: Candidate, judge: Callable[[Candidate], Candidate]) -> Candidate:
        """``candidate`` with its biases corrected, where that is closer to the float model; else as it is."""
        recipe = candidate.recipe.corrected
        if recipe is None or not candidate.trial.outputs:
            return candidate
        found = self.attempt(recipe(), judge)
        if not isinstance(found, Candidate) or found.trial.snr_db <= candidate.trial.snr_db:
            return candidate
        worse = bool(found.trial.refusal) and not candidate.trial.refusal
        return candidate if worse else found

    def distance(self, recipe: Recipe) -> float | None:
        """SNR in decibels at the worst floating output, over few samples; None where ``recipe`` narrows nothing.

        Raises:
            ToolkitError: the candidate cannot be made or run.
        """
        target = self._job.check_target(recipe.precision)
        lowered = recipe.lower()
        if not lowered.quantized:
            return None
        path = self._job.folder / "part.onnx"
        save_model(lowered.model, path)
        with self.open(path, target) as session:
            return worst_snr_db(fidelity(self._job.reference(target.provider, few=True), session))

    def open(self, path: Path, target: Target) -> Session:
        """A candidate's file, open.

        Raises:
            ParityError: the engine does not take it.
        """
        try:
            return registry.provider(target.provider).open(path, target)
        except ToolkitError as exc:
            raise ParityError("the engine does not open the lowered model", where=target.name, got=exc) from exc

    def as_made(self, candidate: Candidate) -> Candidate:
        """No more is asked than that the candidate is no garbage."""
        return candidate

    def judged_for_choice(self, candidate: Candidate) -> Candidate:
        """The same candidate, asked for more: accuracy within the budget, or a good SNR where there are no labels."""
        trial = candidate.trial
        if trial.refusal:
            return candidate
        if self._job.parts is not None and self._job.has_labels:
            accuracy = self.accuracy(candidate, self._job.parts.choose, unseen=False)
            reason = self.over_budget(accuracy)
            if reason and self.by_chance(candidate, accuracy, self._job.parts.choose):
                reason = ""
            trial = msgspec.structs.replace(trial, accuracy=accuracy, refusal=reason)
        elif trial.snr_db < SMALLEST_SNR_DB:
            reason = f"SNR {trial.snr_db:.1f} dB, at least {SMALLEST_SNR_DB:g} dB wanted where there are no labels"
            trial = msgspec.structs.replace(trial, refusal=reason)
        return msgspec.structs.replace(candidate, trial=trial)

    def accuracy(self, candidate: Candidate, data: Dataset, *, unseen: bool) -> Accuracy:
        """What ``candidate`` loses against the float model on ``data``."""
        before = self._job.float_score(candidate.target.provider, data, unseen=unseen)
        with self.open(candidate.path, candidate.target) as session:
            return compare(before, score(session, data, self._job.task), unseen=unseen)

    def over_budget(self, accuracy: Accuracy) -> str:
        """Why this accuracy is outside the budget; "" when it is not."""
        if accuracy.drop <= self._max_drop:
            return ""
        counted = "" if accuracy.drop_samples is None else f", {accuracy.drop_samples:g} of {accuracy.samples} samples"
        return (
            f"{accuracy.metric} {accuracy.before:.4g} to {accuracy.after:.4g}: "
            f"{accuracy.drop:.2f} points lost{counted}, {self._max_drop:g} allowed"
        )

    def by_chance(self, candidate: Candidate, accuracy: Accuracy, data: Dataset) -> str:
        """Why a drop over the budget on ``data`` says nothing against ``candidate``; "" where it does.

        A budget of one point is less than one of 68 samples, and a model that is no worse loses two of them every
        third time. So where the budget is finer than the standard error of the drop, the drop counts only if it can be
        told from chance, or if the float model's own probabilities, which vary far less, put it over the budget too.
        """
        if accuracy.drop_samples is None:
            return ""
        with self.open(candidate.path, candidate.target) as session:
            found = paired(self._job.reference(candidate.target.provider).session, session, data)
        if found is None or found.samples * self._max_drop / 100 >= found.standard_error:
            return ""
        if found.p_value < LEAST_CHANCE or found.expected_drop > self._max_drop:
            return ""
        return (
            f"{accuracy.drop:.2f} points lost, of {found.samples} samples {found.lost} lost and {found.gained} gained, "
            f"cannot be told from chance (p {found.p_value:.2f}); by the float model's own probabilities "
            f"{found.expected_drop:.2f} points are lost; more samples would tell"
        )


def _provenance(recipe: Recipe, job: Job) -> str:
    """What the file says about how it was made; nothing in it changes from run to run."""
    made = {"method": recipe.name, "observer": recipe.observer, "provider": job.rules.provider}
    return json.dumps({name: text for name, text in made.items() if text}, sort_keys=True)
