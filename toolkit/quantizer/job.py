"""One quantization in progress: the model in the forms methods need, its samples, its float sessions, its record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

from toolkit.data import Dataset
from toolkit.errors import UsageError
from toolkit.graph.facts import GraphFacts, facts, require_runnable
from toolkit.graph.files import load_model, save_model
from toolkit.graph.naming import name_nodes
from toolkit.providers import registry
from toolkit.providers.base import Available, Provider
from toolkit.providers.fingerprint import model_digest
from toolkit.providers.placement import PlacementRules, Variant
from toolkit.quantizer.accuracy import Score, score
from toolkit.quantizer.calibration.collect import MEMORY_LIMIT_BYTES, Origin, calibrate
from toolkit.quantizer.calibration.record import SUFFIX, CalibrationRecord, read_record
from toolkit.quantizer.choices import Observer
from toolkit.quantizer.fidelity import Reference
from toolkit.quantizer.lowering.correction import Shifts
from toolkit.quantizer.lowering.static import OPSET as CALIBRATION_OPSET
from toolkit.quantizer.lowering.static import bias_shifts
from toolkit.quantizer.preparing import Prepared, prepare
from toolkit.quantizer.samples import Parts, Samples, in_parts, open_samples, whole
from toolkit.targets import Target

Progress = Callable[[str], None]
FEW_SAMPLES = 8


@final
class Job:
    """Makes what methods ask for when they ask for it, once.

    Args:
        source: the float model's file.
        target: what it is lowered for.
        rules: the placement rules of that target's provider.
        calibration: samples to take ranges from, or a record's path; None for none.
        data: samples to judge by; labels in them decide by accuracy.
        state: model input to the output that feeds it.
        chooses: whether candidates are chosen between.
        folder: where candidates are written.

    Raises:
        InvalidModel: the model's opset is older than engines run.
    """

    def __init__(
        self, source: Path, target: Target, rules: PlacementRules, *, calibration: Samples | None, data: Samples | None,
        state: Mapping[str, str], samples: int | None, memory_limit_bytes: int | None, chooses: bool, folder: Path,
        say: Progress,
    ) -> None:  # fmt: skip
        self.source, self.target, self.rules, self.folder, self.say = source, target, rules, folder, say
        self.facts: GraphFacts = facts(source)
        require_runnable(self.facts, source)
        self._model = load_model(source)
        self.notes: tuple[str, ...] = ()
        self.runnable = self._runnable()
        self._memory_limit_bytes = memory_limit_bytes or MEMORY_LIMIT_BYTES
        self._prepared: dict[int, Prepared] = {}
        self._record: CalibrationRecord | None = None
        self._references: dict[str, Reference] = {}
        self._few: dict[str, Reference] = {}
        self._shifts: dict[tuple[Variant, str], Shifts] = {}
        self._scores: dict[tuple[str, bool], Score] = {}
        self.parts = self._parts(data, state, chooses=chooses or calibration is None)
        self._record_path = _record_path(calibration)
        self._reusable = not isinstance(calibration, Iterator)
        self._calibration = self._calibration_data(None if self._record_path else calibration, state, samples)

    def _runnable(self) -> Path:
        """The source, or a copy of it whose nodes have names of their own, where engines would not open it."""
        copy = self._model.clone()
        repeated = name_nodes(copy)
        if not repeated:
            return self.source
        path = self.folder / "renamed.onnx"
        save_model(copy, path)
        self.notes = (f"{repeated} nodes had the name of another one and were renamed",)
        return path

    def _parts(self, data: Samples | None, state: Mapping[str, str], *, chooses: bool) -> Parts | None:
        """The labelled data in two parts, or whole where nothing is chosen and no range taken on it."""
        if data is None:
            return None
        opened = open_samples(data, self.facts, state=state)
        return in_parts(opened) if chooses else whole(opened)

    def _calibration_data(self, given: Samples | None, state: Mapping[str, str], samples: int | None) -> Dataset | None:
        """The samples given for it, else those that choices are made on."""
        if given is not None:
            return open_samples(given, self.facts, state=state, limit=samples)
        if self.parts is None:
            return None
        return self.parts.choose if samples is None else self.parts.choose.take(0, samples)

    def prepared(self, opset: int) -> Prepared:
        """The model in the form that lowering expects, of at least ``opset``."""
        opset = max(opset, self.facts.opset)
        if opset not in self._prepared:
            self._prepared[opset] = prepare(self._model, opset=opset, where=self.source)
        return self._prepared[opset]

    @property
    def can_calibrate(self) -> bool:
        return self._calibration is not None or self._record_path is not None

    @property
    def calibrated(self) -> CalibrationRecord | None:
        """The record, if one has been made or read."""
        return self._record

    def record(self) -> CalibrationRecord:
        """The calibration record: read, or made in one pass over the samples.

        Raises:
            UsageError: there is neither, or the record belongs to another model.
        """
        if self._record is None:
            self._record = self._read_record() or self._make_record()
        return self._record

    @property
    def can_correct(self) -> bool:
        """Whether there are samples to tell by what quantizing moves: a record, or a spent iterator, cannot."""
        return self._calibration is not None and self._reusable

    def shifts(self, variant: Variant, observer: Observer) -> Shifts:
        """What static int8 moves the means of channels by."""
        assert self._calibration is not None, "ask can_correct first"
        key = (variant.arithmetic, observer)
        if key not in self._shifts:
            self.say("correcting biases")
            model = self.prepared(CALIBRATION_OPSET).model
            self._shifts[key] = bias_shifts(model, variant, self.record(), observer, self._calibration)
        return self._shifts[key]

    def _read_record(self) -> CalibrationRecord | None:
        if self._record_path is None:
            return None
        return read_record(self._record_path).require(model_digest(self.source), self._record_path)

    def _make_record(self) -> CalibrationRecord:
        if self._calibration is None:
            raise UsageError(
                "calibration needs samples to take ranges from", where=self.source,
                next_step="give them with --calibration DATA (or a record made from them)",
            )  # fmt: skip
        origin = Origin(self.source.name, model_digest(self.source))
        return calibrate(
            self.prepared(CALIBRATION_OPSET).model, self._calibration, origin,
            memory_limit_bytes=self._memory_limit_bytes,
            progress=lambda done: self.say(f"calibrating: {done} samples"),
        )  # fmt: skip

    @property
    def check_data(self) -> Dataset | None:
        """Samples to compare outputs on; None where there are none."""
        if self.parts is not None:
            return self.parts.choose
        return self._calibration if self._reusable else None

    # running

    def check_target(self, precision: str) -> Target:
        """Where files of ``precision`` can be compared here: the target itself, else the first provider that runs them.

        Raises:
            UsageError: nowhere.
        """
        names = (self.target.provider, *(name for name in registry.NAMES if name != self.target.provider))
        for name in names:
            provider = registry.provider(name)
            own = name == self.target.provider
            if _can_run(provider, precision, self.target.device if own else ""):
                return self.target if own else Target(name=name, provider=name)
        raise UsageError(
            f"no engine on this machine runs {precision} files, so the result could not be checked",
            where=self.target.name, next_step="pip install 'onnx-toolkit[openvino]'",
        )  # fmt: skip

    def reference(self, provider: str, *, few: bool = False) -> Reference:
        """The float model on the engine of a check target, without any rounding of the engine's own.

        Args:
            few: only :data:`FEW_SAMPLES`, where many models are compared with it.
        """
        if provider not in self._references:
            own = provider == self.target.provider
            plain = Target(name="reference", provider=provider, device=self.target.device if own else "")
            session = registry.provider(provider).open(self.runnable, plain)
            self._references[provider] = Reference(session, self.facts.inputs, self.check_data)
        if not few:
            return self._references[provider]
        if provider not in self._few:
            data = None if self.check_data is None else self.check_data.take(0, FEW_SAMPLES)
            self._few[provider] = Reference(self._references[provider].session, self.facts.inputs, data, shapes=1)
        return self._few[provider]

    def float_score(self, provider: str, data: Dataset, *, unseen: bool) -> Score:
        """The float model's headline metric on the part of the data that choices are made on, or on the other."""
        key = (provider, unseen)
        if key not in self._scores:
            self._scores[key] = score(self.reference(provider).session, data, self.task)
        return self._scores[key]

    @property
    def task(self) -> str | None:
        return self.facts.metadata.get("toolkit.task")

    @property
    def has_labels(self) -> bool:
        return self.parts is not None and self.parts.report.has_labels

    def close(self) -> None:
        for reference in self._references.values():
            reference.session.close()


def _record_path(calibration: Any) -> Path | None:
    """``calibration`` as a path, where it is a record's."""
    if not isinstance(calibration, str | Path) or Path(calibration).suffix != SUFFIX:
        return None
    return Path(calibration)


def _can_run(provider: Provider, precision: str, device: str) -> bool:
    takes_quantized = provider.placement_rules is not None
    return takes_quantized and precision in provider.precisions and isinstance(provider.probe(device), Available)
