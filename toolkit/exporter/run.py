"""One export from module to file: ask the module, try the strategies, judge, write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

from toolkit.errors import FileProblem, ParityError, UsageError
from toolkit.exporter import state
from toolkit.exporter.adapter import Adapter
from toolkit.exporter.finish import finish
from toolkit.exporter.judge import Answer, Case, Verdict, answer, judge
from toolkit.exporter.parity import FLOOR_ULP, MULTIPLE
from toolkit.exporter.purity import require_pure
from toolkit.exporter.quiet import quiet
from toolkit.exporter.reference import Reference, output_specs
from toolkit.exporter.report import Attempt, ExportReport
from toolkit.exporter.sizes import Sizes, find_sizes
from toolkit.exporter.sources import Source
from toolkit.exporter.strategies.base import Candidate, Job, NotNeeded, Strategy, StrategyFailed
from toolkit.exporter.values import corners, usual
from toolkit.files import atomic_folder, sha256
from toolkit.graph.facts import facts
from toolkit.graph.files import save_model
from toolkit.providers.torch_ import to_tensor
from toolkit.tensors import INTEGERS, TensorSpec

# Weights beyond which a model is run at the smallest sizes where others are at the traced ones.
_LARGE_BYTES = 50_000_000


class Export:
    """One export in progress."""

    def __init__(
        self, source: Source, specs: tuple[TensorSpec, ...], path: Path, opset: int | None,
        output_names: tuple[str, ...], debug: bool, progress: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._source, self._specs, self._path, self._opset = source, specs, path, opset
        self._debug, self._progress = debug, progress
        _check_files(source.files, path.parent)
        self._notes = list(source.notes)
        _check_weights(source)
        self._to_evaluation_mode(source.module)
        self._notes += [
            f"input '{spec.name}' was only tried with 0 and 1; give its range as {spec}=0..HIGHEST"
            for spec in specs
            if spec.dtype in INTEGERS and spec.values is None and "mask" not in spec.name
        ]
        self._adapter = Adapter(source.module, specs, output_names).eval()
        progress("running the module in float64 and in its own precision")
        with quiet(not debug):
            self._reference = Reference(self._adapter, specs)
            self._sizes = find_sizes(specs, self._reference.try_run, source.dims)
            self._job = self._make_job()
            self._answers = answer(self._reference, list(self._cases(self._sizes)))
            self._fingerprint = state.fingerprint(self._adapter.module)
        self._notes += self._sizes.notes
        self._outputs = output_specs([(item.case.dims, item.own) for item in self._answers])
        self._job = self._job._replace(outputs=tuple(spec.name for spec in self._outputs))

    def _to_evaluation_mode(self, module: nn.Module) -> None:
        training = [name or "the module" for name, part in module.named_modules() if part.training]
        if training:
            module.eval()
            self._notes.append(f"{training[0]} was in training mode; exported in evaluation mode")

    def _make_job(self) -> Job:
        names = [spec.name for spec in self._specs]
        first = usual(self._specs, self._sizes.traced, 0)
        purity = require_pure(self._adapter, names, *(usual(self._specs, self._quick_sizes(), seed) for seed in (0, 1)))
        self._notes += [
            f"the module writes into its input '{name}'; the graph does not" for name in purity.input_writes
        ]
        example = tuple(to_tensor(first[name]) for name in names)
        return Job(
            self._adapter, self._specs, self._sizes.traced, example, (), self._opset, purity, self._reference.try_run
        )

    def _quick_sizes(self) -> dict[str, int]:
        """Where paths through the code matter and sizes do not: the traced ones, of large models the smallest."""
        large = sum(item.nbytes for item in state.tensors(self._source.module).values()) > _LARGE_BYTES
        return self._sizes.cases.get("smallest", self._sizes.traced) if large else self._sizes.traced

    def _cases(self, sizes: Sizes) -> list[Case]:
        cases = [
            Case(label, dims, usual(self._specs, dims, seed=index))
            for index, (label, dims) in enumerate(sizes.cases.items())
        ]
        dims = self._quick_sizes()
        return cases + [Case(label, dims, feeds, odd=True) for label, feeds in corners(self._specs, dims, seed=99)]

    def report(self, strategies: Sequence[Strategy]) -> ExportReport:
        """Try the strategies in turn and write the first graph that passes."""
        attempts: list[Attempt] = []
        with atomic_folder(self._path) as scratch:
            for strategy in strategies:
                self._progress(f"exporting with {strategy.name}")
                folder = scratch / "candidate"
                folder.mkdir()
                try:
                    with quiet(not self._debug):
                        candidate = self._build(strategy)
                        file = self._write(candidate, strategy, folder)
                    self._progress(f"comparing what {strategy.name} made at {len(self._answers)} sizes and values")
                    with quiet(not self._debug):
                        verdict = self._judge(file, candidate)
                except StrategyFailed as exc:
                    shutil.rmtree(folder)
                    if not isinstance(exc, NotNeeded):
                        attempts.append(Attempt(strategy.name, str(exc)))
                    continue
                attempts.append(Attempt(strategy.name, ""))
                report = self._describe(file, strategy, attempts, verdict, candidate)
                self._publish(folder, scratch)
                return report
            raise ParityError(
                "no strategy made a graph that computes the same",
                where=self._source.name,
                got="; ".join(f"{item.strategy}: {item.reason}" for item in attempts),
                next_step="run again with --debug for what the exporters say",
            )

    def _build(self, strategy: Strategy) -> Candidate:
        """Let a strategy make its graph; the module has to come out of that as it went in.

        Raises:
            StrategyFailed: the strategy did not succeed.
            ParityError: the module has changed, so that nothing can be judged any more.
        """
        try:
            return strategy.build(self._job)
        finally:
            self._adapter.eval()  # torch's exporters set the mode, and set another one back
            moved = state.changed(self._fingerprint, state.fingerprint(self._adapter.module))
            if moved:
                raise ParityError(
                    "the module keeps something when it runs at another size or is captured",
                    where=self._source.name,
                    got=f"another value in {', '.join(moved[:3])}",
                    next_step="compute it in forward, or once in __init__",
                )

    def _write(self, candidate: Candidate, strategy: Strategy, folder: Path) -> Path:
        finish(candidate.model, self._specs, self._outputs, self._metadata(strategy))
        file = folder / self._path.name
        save_model(candidate.model, file)
        return file

    def _metadata(self, strategy: Strategy) -> dict[str, str]:
        source = self._source
        values = {spec.name: spec.values for spec in self._specs if spec.values is not None}
        found: Mapping[str, str] = {
            "toolkit.source": source.name,
            "toolkit.task": source.task,
            "toolkit.license": source.license,
            "toolkit.labels": json.dumps(source.labels) if source.labels else "",
            "toolkit.values": json.dumps(values) if values else "",
            "toolkit.state": json.dumps(source.state) if source.state else "",
            "toolkit.preprocessing": source.preprocessing.to_json() if source.preprocessing else "",
            "toolkit.export": strategy.name,
        }
        return {key: text for key, text in found.items() if text}

    def _judge(self, file: Path, candidate: Candidate) -> Verdict:
        further = [
            Case(label, dims, usual(self._specs, dims, seed=50 + index))
            for index, (label, dims) in enumerate(candidate.sizes.items())
        ]
        answers: list[Answer] = [*self._answers, *answer(self._reference, further)]
        return judge(file, answers, self._reference)

    def _describe(
        self, file: Path, strategy: Strategy, attempts: list[Attempt], verdict: Verdict, candidate: Candidate
    ) -> ExportReport:  # fmt: skip
        known = facts(file)
        reference = self._reference.precision + (f" ({self._reference.note})" if self._reference.note else "")
        return ExportReport(
            output=str(self._path),
            source=self._source.name,
            strategy=strategy.name,
            attempts=tuple(attempts),
            inputs=self._specs,
            outputs=known.outputs,
            dynamic_dims=known.dynamic_dims,
            opset=known.opset,
            parameters=known.parameters,
            size_bytes=known.size_bytes,
            precision=known.precision,
            reference=reference,
            tolerance=f"{MULTIPLE:g} × torch's own error, at least {FLOOR_ULP:g} ulp of the output's magnitude",
            engine=verdict.engine,
            cases=verdict.cases,
            files=tuple(str(self._path.parent / name) for name in self._source.files),
            notes=(*self._notes, *candidate.notes, *verdict.notes),
            sha256=sha256(file),
        )

    def _publish(self, folder: Path, scratch: Path) -> None:
        """Move the candidate's files, and what belongs to the model, to where they will be renamed from."""
        for entry in folder.iterdir():
            entry.rename(scratch / entry.name)
        folder.rmdir()
        for name, content in self._source.files.items():
            shutil.copyfile(content, scratch / name)


def _check_files(files: Mapping[str, Path], folder: Path) -> None:
    """Files that belong to the model may not take the place of others.

    Raises:
        FileProblem: a file of that name with another content is there.
    """
    for name, content in files.items():
        place = folder / name
        if place.is_file() and place.read_bytes() != content.read_bytes():
            raise FileProblem(
                "another file of this name is beside the output", where=place, next_step="export to an empty folder"
            )


def _check_weights(source: Source) -> None:
    """Lazy layers have no weights before they have run once.

    Raises:
        UsageError: there is one.
    """
    lazy = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
    for name, tensor in (*source.module.named_parameters(), *source.module.named_buffers()):
        if isinstance(tensor, lazy):
            raise UsageError(
                "a lazy layer has no weights yet", where=source.name, got=name, next_step="call the module once first"
            )
