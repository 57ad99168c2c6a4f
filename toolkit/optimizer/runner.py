"""Runs passes in order, round after round until nothing changes, and can stop after any step to find a bad one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, final

import onnx_ir as ir

from toolkit.errors import UsageError
from toolkit.graph.folding import DEFAULT_GROWTH_BYTES
from toolkit.optimizer.base import Pass, PassReport
from toolkit.optimizer.passes.deduplicate_initializers import DeduplicateInitializers
from toolkit.optimizer.passes.detach_initializers import DetachInitializers
from toolkit.optimizer.passes.dims import FixDims, RenameDims
from toolkit.optimizer.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from toolkit.optimizer.passes.fold_batch_norm import FoldBatchNorm
from toolkit.optimizer.passes.fold_constants import FoldConstants
from toolkit.optimizer.passes.inline_constant_if import InlineConstantIf
from toolkit.optimizer.passes.inline_constant_where import InlineConstantWhere
from toolkit.optimizer.passes.lift_constants import LiftConstants
from toolkit.optimizer.passes.merge_transposes import MergeTransposes
from toolkit.optimizer.passes.remove_casts import RemoveCasts
from toolkit.optimizer.passes.remove_dead_code import RemoveDeadCode
from toolkit.optimizer.passes.remove_identity import RemoveIdentity
from toolkit.optimizer.passes.remove_neutral_operands import RemoveNeutralOperands
from toolkit.optimizer.passes.simplify_softmax_guard import SimplifySoftmaxGuard
from toolkit.optimizer.passes.unwrap_batch_norm import UnwrapBatchNorm
from toolkit.optimizer.passes.unwrap_transpose import UnwrapTranspose
from toolkit.optimizer.passes.upgrade_opset import UpgradeOpset
from toolkit.tensors import nearest

# A fixed point is normally reached in two or three; a pair of passes that undo each other must not run forever.
MAX_ROUNDS = 12


class Plan(NamedTuple):
    """Passes that run once, then passes that run in rounds."""

    once: tuple[Pass, ...]
    repeated: tuple[Pass, ...]


def simplifications(growth_bytes: int = DEFAULT_GROWTH_BYTES) -> tuple[Pass, ...]:
    """The passes of every run, in order: each leaves work for those behind it."""
    return (
        DetachInitializers(),
        LiftConstants(),
        RemoveIdentity(),
        RemoveCasts(),
        FoldConstants(growth_bytes),
        InlineConstantIf(),
        InlineConstantWhere(),
        RemoveNeutralOperands(),
        UnwrapBatchNorm(),
        FoldBatchNorm(),
        SimplifySoftmaxGuard(),
        UnwrapTranspose(),
        MergeTransposes(),
        EliminateCommonSubexpressions(),
        DeduplicateInitializers(),
        RemoveDeadCode(),
    )


def plan(
    *,
    dims: Mapping[str, int] | None = None,
    rename: Mapping[str, str] | None = None,
    opset: int | None = None,
    passes: Sequence[Pass] | None = None,
    skip: Sequence[str] = (),
    growth_bytes: int = DEFAULT_GROWTH_BYTES,
) -> Plan:
    """What to run for these wishes; ``passes`` stands in for the simplifications, ``skip`` names some to leave out.

    Raises:
        UsageError: there is no pass of that name.
    """
    repeated = simplifications(growth_bytes) if passes is None else tuple(passes)
    for name in skip:
        if name not in (known := [item.name for item in repeated]):
            raise UsageError("there is no such pass", where="--skip", got=name, expected=nearest(name, known))
    once: list[Pass] = []
    if opset is not None:
        once.append(UpgradeOpset(opset))
    if rename:
        once.append(RenameDims(rename))
    if dims:
        once.append(FixDims(dims))
    return Plan(tuple(once), tuple(item for item in repeated if item.name not in skip))


@final
class Run:
    """One run of a plan over a model; the model that was passed in is not changed.

    Attributes:
        model: the result.
        reports: one per pass, its rounds added up.
        steps: the passes that changed something, in the order in which they did.
    """

    def __init__(self, model: ir.Model, chosen: Plan, progress: Callable[[str], None] | None = None) -> None:
        self._source = model
        self._progress = progress or (lambda name: None)
        self.model = model.clone()
        self.steps: list[Pass] = []
        self._reports: dict[str, PassReport] = {}
        for item in chosen.once:
            self._apply(item)
        for _ in range(MAX_ROUNDS):
            before = len(self.steps)
            for item in chosen.repeated:
                self._apply(item)
            if len(self.steps) == before:
                break

    def _apply(self, item: Pass) -> None:
        self._progress(item.name)
        self.model, report = item(self.model)
        if report.changed:
            self.steps.append(item)
        known = self._reports.get(item.name)
        self._reports[item.name] = report if known is None else known + report

    @property
    def reports(self) -> tuple[PassReport, ...]:
        return tuple(self._reports.values())

    def after(self, count: int) -> ir.Model:
        """The model after the first ``count`` steps; the same steps give the same model."""
        model = self._source.clone()
        for item in self.steps[:count]:
            model, _ = item(model)
        return model

    def first_bad_step(self, is_good: Callable[[ir.Model], bool]) -> Pass | None:
        """Bisect for the step after which ``is_good`` turns false; None where even the untouched model is not good."""
        if not self.steps or not is_good(self.after(0)):
            return None
        good, bad = 0, len(self.steps)
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if is_good(self.after(middle)) else (good, middle)
        return self.steps[bad - 1]
