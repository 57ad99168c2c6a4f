"""``toolkit.optimize``: a smaller graph of standard operators that computes the same, or no file at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import onnx_ir as ir

from toolkit.files import atomic_folder, existing_file, sha256, writable_output
from toolkit.graph.facts import OLDEST_OPSET, SUGGESTED_OPSET, GraphFacts, facts
from toolkit.graph.files import load_model, save_model
from toolkit.graph.folding import DEFAULT_GROWTH_BYTES
from toolkit.optimizer.base import Pass, PassReport
from toolkit.optimizer.check import Checker
from toolkit.optimizer.passes.upgrade_opset import UpgradeOpset
from toolkit.optimizer.runner import Run, plan
from toolkit.targets import Target
from toolkit.verifier.api import VerifyReport


class OptimizeReport(msgspec.Struct, frozen=True):
    """What was done to a model and how it was checked.

    Attributes:
        notes: what a person should know about an upgraded opset.
        verification: None where no check was asked for.
    """

    source: str
    output: str
    sha256: str
    nodes_before: int
    nodes_after: int
    operators_before: dict[str, int]
    operators_after: dict[str, int]
    size_bytes_before: int
    size_bytes_after: int
    opset_before: int
    opset_after: int
    passes: tuple[PassReport, ...]
    notes: tuple[str, ...]
    verification: VerifyReport | None


def optimize_model(
    model: ir.Model,
    *,
    dims: Mapping[str, int] | None = None,
    rename: Mapping[str, str] | None = None,
    opset: int | None = None,
    passes: Sequence[Pass] | None = None,
    growth_bytes: int = DEFAULT_GROWTH_BYTES,
) -> tuple[ir.Model, tuple[PassReport, ...]]:
    """Simplify a model in memory, unverified; the one that was passed in is not changed.

    Raises:
        UsageError: a dim or opset that the model cannot have.
        InvalidModel: a pass failed; the line names it.
    """
    run = Run(model, plan(dims=dims, rename=rename, opset=opset, passes=passes, growth_bytes=growth_bytes))
    return run.model, run.reports


def optimize(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    dims: Mapping[str, int] | None = None,
    rename: Mapping[str, str] | None = None,
    opset: int | None = None,
    skip: Sequence[str] = (),
    growth_bytes: int = DEFAULT_GROWTH_BYTES,
    check: bool = True,
    check_dims: Mapping[str, int] | None = None,
    data: Any = None,
    target: str | Target = "cpu",
    progress: Callable[[str], None] | None = None,
) -> OptimizeReport:
    """Simplify an ONNX file and prove that the result computes the same.

    Args:
        source: the model.
        output: where the result goes; written whole, or not at all.
        dims: sizes to fix named dims at.
        rename: new names for named dims.
        opset: a newer opset to rewrite the model for.
        skip: names of passes to leave out.
        growth_bytes: how much larger than what it replaces a folded constant may be.
        check: whether to compare the result with its source, at several shapes.
        check_dims: sizes to compare at, for models that run at some sizes only; they stay dynamic.
        data: samples to compare on too, as ``toolkit.verify`` takes them.
        target: where to compare; a provider that runs the file's precision.
        progress: called with what is being done.

    Returns:
        What each pass did, and the comparison.

    Raises:
        ParityError: the result computes something else; the line names the pass that did it.
        UsageError: a dim or opset that the model cannot have, or shapes at which the source itself does not run.
        InvalidModel, FileProblem: the source cannot be read, or the output not written.
    """
    source, output = existing_file(source, "model file"), writable_output(output)
    before = facts(source)
    chosen = plan(dims=dims, rename=rename, opset=_wanted_opset(before, opset), skip=skip, growth_bytes=growth_bytes)
    run = Run(load_model(source), chosen, progress)
    verification = None
    with atomic_folder(output) as scratch:
        written = scratch / output.name
        save_model(run.model, written)
        if check:
            _say(progress, "verify")
            with Checker(source, dims=check_dims, data=data, target=target) as checker:
                verification = checker.require(run, written, output)
        after, digest = facts(written), sha256(written)
    return OptimizeReport(
        source=str(source),
        output=str(output),
        sha256=digest,
        nodes_before=before.node_count,
        nodes_after=after.node_count,
        operators_before=before.operators,
        operators_after=after.operators,
        size_bytes_before=before.size_bytes,
        size_bytes_after=after.size_bytes,
        opset_before=before.opset,
        opset_after=after.opset,
        passes=run.reports,
        notes=tuple(note for item in run.reports if item.name == UpgradeOpset.__name__ for note in item.details),
        verification=verification,
    )


def _say(progress: Callable[[str], None] | None, text: str) -> None:
    if progress is not None:
        progress(text)


def _wanted_opset(before: GraphFacts, opset: int | None) -> int | None:
    """The opset to write, None to keep the model's.

    Engines run nothing below 7, so what is older is upgraded whether that was asked for or not.
    """
    if opset is None and "ai.onnx" in before.domains and before.opset < OLDEST_OPSET:
        return SUGGESTED_OPSET
    return opset
