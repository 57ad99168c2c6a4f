"""What ``toolkit demo`` does, step by step, with the same calls that the commands make."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from toolkit.bundle.compose import bundle_of, variant_of
from toolkit.bundle.manifest import Measurement
from toolkit.bundle.writer import VariantSource, create_bundle
from toolkit.data import open_data
from toolkit.errors import AccuracyError, EngineError
from toolkit.evaluator.api import evaluate
from toolkit.exporter.api import export
from toolkit.exporter.zoo import zoo_module
from toolkit.files import write_atomic
from toolkit.graph.facts import facts
from toolkit.optimizer.api import optimize
from toolkit.profiler.api import profile
from toolkit.profiler.models import Model
from toolkit.profiler.records import CaseRecord, ProfileReport
from toolkit.profiler.schedule import OnProgress
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.quantizer.api import quantize
from toolkit.runtime.fingerprint import here
from toolkit.runtime.records import record_rows
from toolkit.targets import Target, shipped_targets

MODELS = {
    "fcnn": "fcnn_digits",
    "cnn": "cnn_digits",
    "rnn": "rnn_digits",
    "transformer": "transformer_digits",
}
# Points of accuracy that an int8 file may lose and still be kept; what the quantize command takes by default as well.
MAX_DROP = 1.0

Say = Callable[[str], None]


class File(msgspec.Struct, frozen=True):
    """A model file of the demo and the targets it is measured on. ``accuracy`` is by target name."""

    model: str
    path: Path
    precision: str
    targets: tuple[Target, ...]
    size_bytes: int
    accuracy: dict[str, float] = {}


class Row(msgspec.Struct, frozen=True):
    """A line of the demo's table. ``ratio`` is the time over torch eager's: below 1 is faster."""

    model: str
    target: str
    precision: str
    accuracy: float | None
    size_bytes: int | None
    p50_ns: float | None
    p50_ci: tuple[float, float] | None
    p99_ns: float | None
    p99_withheld: str
    ratio: float | None
    ratio_ci: tuple[float, float] | None
    verdict: str
    kept: bool


class Demo(msgspec.Struct, frozen=True):
    """Everything the demo found out."""

    rows: tuple[Row, ...]
    torch_accuracy: dict[str, float]
    unavailable: dict[str, str]
    bundles: dict[str, str]
    fresh_process: dict[str, Any]
    report: str


def available_targets() -> tuple[tuple[Target, ...], dict[str, str]]:
    """The shipped latency targets that run files as they are, and what is not here with reason and remedy."""
    found: list[Target] = []
    missing: dict[str, str] = {}
    for name, target in shipped_targets().items():
        provider = registry.provider(target.provider)
        answer = registry.availability(target)
        if isinstance(answer, Unavailable):
            missing[name] = f"{answer.reason}; {answer.remedy}"
        elif provider.accepts_onnx and target.mode == "latency" and not target.inference_precision:
            found.append(target)
    return tuple(found), missing


def train(short: str, folder: Path, splits: dict[str, Path], say: Say) -> float:
    """Train a zoo model on the digits, write its weights; returns torch's accuracy on the test split."""
    training = zoo_module("training")
    entry = zoo_module("registry").entry(MODELS[short])
    data = {
        name: open_data(path, inputs=entry.inputs, preprocessing=entry.preprocessing) for name, path in splits.items()
    }
    module, report = training.train(
        entry, data["train"], data["test"], lambda epoch, epochs, loss: say(f"{short}: training, {epoch}/{epochs}")
    )
    training.save_weights(module, folder / "weights.safetensors", entry.name)
    return float(report.test_accuracy)


def make_files(short: str, folder: Path, calibration: Path, targets: Sequence[Target], say: Say) -> list[File]:
    """Export, optimize and quantize; each step is verified by itself and raises when it does not hold."""
    exported, optimized = folder / f"{short}.exported.onnx", folder / f"{short}.onnx"
    say(f"{short}: exporting and checking against torch")
    export(f"zoo:{MODELS[short]}", output=exported, weights=folder / "weights.safetensors")
    say(f"{short}: optimizing and verifying")
    optimize(exported, optimized)
    files = [_file(short, optimized, [target for target in targets if target.allows("float32")])]
    for provider in dict.fromkeys(target.provider for target in targets if target.allows("int8")):
        say(f"{short}: quantizing for {provider}")
        fitting = [target for target in targets if target.provider == provider and target.allows("int8")]
        output = folder / f"{short}.int8-{provider}.onnx"
        quantize(optimized, output, target=fitting[0], method="static", calibration=calibration)
        files.append(_file(short, output, fitting))
    return files


def _file(short: str, path: Path, targets: Sequence[Target]) -> File:
    known = facts(path)
    return File(short, path, known.precision, tuple(targets), known.size_bytes)


def with_accuracy(file: File, data: Path, say: Say) -> File:
    """Evaluate ``file`` on each of its targets."""
    found: dict[str, float] = {}
    for target in file.targets:
        say(f"{file.model}: evaluating {file.precision} on {target.provider}")
        found[target.name] = float(evaluate(file.path, data, target=target).metrics["accuracy"])
    return msgspec.structs.replace(file, accuracy=found)


def measure(files: Sequence[File], budget_s: float, on_progress: OnProgress) -> ProfileReport:
    """Measure every file on its targets, and the torch modules they came from, all in one run."""
    sources = [
        Model(name=short, path=f"zoo:{MODELS[short]}", kind="source", group=short)
        for short in dict.fromkeys(file.model for file in files)
    ]
    models = [
        Model(
            name=file.path.name,
            path=str(file.path),
            kind="onnx",
            group=file.model,
            precision=file.precision,
            inputs=facts(file.path).inputs,
            size_bytes=file.size_bytes,
            made_for=tuple(dict.fromkeys(target.provider for target in file.targets)),
        )
        for file in files
    ]
    targets = [shipped_targets()["torch-eager"], *dict_of(target for file in files for target in file.targets).values()]

    # Two processes per case instead of three: starting twenty workers that import engines takes longer than measuring.
    return profile([*sources, *models], targets, budget_s=budget_s, processes=2, on_progress=on_progress)


def dict_of(targets: Any) -> dict[str, Target]:
    return {target.name: target for target in targets}


def rows_of(files: Sequence[File], torch_accuracy: dict[str, float], report: ProfileReport) -> tuple[Row, ...]:
    """Lines of the table: per model torch first, then each file on each target; the kept ones are marked."""
    rows: list[Row] = []
    for short in dict.fromkeys(file.model for file in files):
        eager = [case for case in report.cases if case.model == short and case.status == "ok"]
        rows += [_row(short, case, torch_accuracy[short], None, report) for case in eager]
        own = {file.path.name: file for file in files if file.model == short}
        found = [
            _row(short, case, own[case.model].accuracy[case.target], own[case.model].size_bytes, report)
            for case in report.cases
            if case.model in own and case.status == "ok"
        ]
        rows += [msgspec.structs.replace(row, kept=row in _kept(found)) for row in found]
    return tuple(rows)


def _row(short: str, case: CaseRecord, accuracy: float, size_bytes: int | None, report: ProfileReport) -> Row:
    latency, comparison = case.latency_ns, report.comparison(case)
    return Row(
        model=short,
        target=case.target,
        precision=case.precision or "float32",
        accuracy=accuracy,
        size_bytes=size_bytes,
        p50_ns=None if latency is None else latency.p50,
        p50_ci=None if latency is None else latency.p50_ci,
        p99_ns=None if latency is None else latency.p99,
        p99_withheld="" if latency is None else latency.withheld.get("p99", ""),
        ratio=None if comparison is None else comparison.ratio,
        ratio_ci=None if comparison is None else comparison.ratio_ci,
        verdict="baseline" if comparison is None else comparison.verdict,
        kept=False,
    )


def _kept(rows: Sequence[Row]) -> list[Row]:
    """Per provider the float row, or the fastest of those that are accurate and surely faster than it."""
    kept = []
    for provider in dict.fromkeys(_provider(row) for row in rows):
        own = [row for row in rows if _provider(row) == provider and row.p50_ns is not None]
        floats = [row for row in own if row.precision == "float32"]
        better = [row for row in own if floats and _wins(row, floats[0])]
        kept += sorted(better or floats, key=lambda row: row.p50_ns or 0.0)[:1]
    return kept


def _wins(row: Row, float_row: Row) -> bool:
    """Whether ``row`` loses at most the budget of accuracy and its latency's interval lies below the float row's."""
    drop = 100 * ((float_row.accuracy or 0.0) - (row.accuracy or 0.0))
    return bool(row.p50_ci and float_row.p50_ci and row.p50_ci[1] < float_row.p50_ci[0] and drop <= MAX_DROP + 1e-9)


def _provider(row: Row) -> str:
    return shipped_targets()[row.target].provider


def make_bundle(short: str, folder: Path, files: Sequence[File], rows: Sequence[Row], report: ProfileReport) -> Path:
    """One bundle with the float file and every file that was kept, each with its evidence."""
    first = files[0]
    known = facts(first.path)
    kept = {(row.target, row.precision) for row in rows if row.kept}
    sources: list[VariantSource] = []
    for file in files:
        targets = [target for target in file.targets if (target.name, file.precision) in kept]
        if file is first or targets:
            sources.append(_evidence(file, targets or list(file.targets), rows, report))
    manifest = bundle_of(first.path, known.inputs, known.outputs, known.metadata, "Apache-2.0")
    path = folder / f"{short}.bundle"
    made = create_bundle(path, manifest, sources)
    for source in sources:
        made = record_rows(made, source.variant.name)
    return path


def _evidence(file: File, targets: Sequence[Target], rows: Sequence[Row], report: ProfileReport) -> VariantSource:
    measured = tuple(
        Measurement(
            row.target,
            _provider(row),
            row.p50_ns,
            row.p50_ci,
            environment=report.environment.fingerprint,
            fingerprint=here(shipped_targets()[row.target]),
        )
        for row in rows
        if row.precision == file.precision and row.p50_ns is not None and row.target in [t.name for t in targets]
    )
    source = variant_of(file.path, file.precision, tuple(targets), file.path.stem.removeprefix(f"{file.model}."))
    variant = msgspec.structs.replace(source.variant, accuracy=dict(file.accuracy), measurements=measured)
    return msgspec.structs.replace(source, variant=variant)


# Runs in a new interpreter in which torch and everything that makes models cannot be imported.
_FRESH = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnx_ir", "onnxscript", "transformers", "click", "rich"}:
            raise ImportError(f"{name} is not installed in this process")

sys.meta_path.insert(0, Absent())
import numpy
import toolkit

samples = numpy.load(sys.argv[2])
with toolkit.load(sys.argv[1]) as session:
    outputs = session(session.preprocess({"image": samples["image"]}))
    found = outputs[session.outputs[0].name].argmax(-1)
    print(json.dumps({
        "provider": session.provider, "model": session.model, "images": len(found),
        "right": int((found == samples["labels"]).sum()),
        "first": [session.labels[index] for index in found[:10]], "truth": samples["labels"][:10].tolist(),
        "torch_loaded": "torch" in sys.modules,
    }))
"""


def classify_in_fresh_process(bundle: Path, data: Path) -> dict[str, Any]:
    """Load ``bundle`` where torch cannot be imported and classify the test images with it.

    Raises:
        EngineError: the process failed.
    """
    done = subprocess.run([sys.executable, "-c", _FRESH, str(bundle), str(data)], capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError("the fresh process failed", where=bundle, got=done.stderr[-400:])
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "model": Path(found["model"]).name, "bundle": bundle.name}


def check_accuracy(rows: Sequence[Row], minimum: dict[str, float]) -> None:
    """Refuse a demo whose float models did not learn: nothing else in the table would mean anything.

    Raises:
        AccuracyError: naming the first such model.
    """
    for row in rows:
        if row.precision == "float32" and (row.accuracy or 0.0) < minimum[row.model]:
            raise AccuracyError(
                f"the {row.model} did not learn",
                got=f"{row.accuracy:.1%}",
                expected=f"at least {minimum[row.model]:.0%}",
            )


def write_splits(folder: Path) -> dict[str, Path]:
    """The digits as ``train.npz``, ``calibration.npz`` and ``test.npz``."""
    paths: dict[str, Path] = zoo_module("digits").write_splits(folder)
    return paths


def write_report(path: Path, report: ProfileReport) -> Path:
    """The measurements as a page and, beside it, as JSON."""
    from toolkit.report.formats import FORMATS

    write_atomic(path.with_suffix(".json"), FORMATS["json"](report))
    return write_atomic(path, FORMATS["html"](report))
