"""What a pass is: it may decline, it changes a model in place, it counts what it did and says why it did not.

After onnx/ir-py's ``passes/_pass_infra.py``: the base wraps *requires, call, ensures*, so no pass can skip the checks.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import final

import msgspec
import onnx_ir as ir

from toolkit.errors import InvalidModel, ToolkitError, one_line
from toolkit.graph.validity import check_model
from toolkit.graph.walk import every_node

_DETAILS_KEPT = 20


class PassReport(msgspec.Struct, frozen=True):
    """What a pass did.

    Attributes:
        changed: how many things it changed (nodes, initializers, dims: the pass says which).
        details: the first changes, one line each.
        skipped: why it left alone what looked like a case for it, and how often.
    """

    name: str
    changed: int
    details: tuple[str, ...]
    skipped: dict[str, int]
    nodes_before: int
    nodes_after: int
    ms: float

    def __add__(self, later: PassReport) -> PassReport:
        """This pass over several rounds; reasons are those of the last round, since the others no longer hold."""
        return PassReport(
            self.name,
            self.changed + later.changed,
            (self.details + later.details)[:_DETAILS_KEPT],
            later.skipped,
            self.nodes_before,
            later.nodes_after,
            round(self.ms + later.ms, 3),
        )


@final
class Changes:
    """Collects what a pass does while it runs."""

    def __init__(self) -> None:
        self.count = 0
        self.details: list[str] = []
        self.skipped: Counter[str] = Counter()

    def made(self, detail: str, count: int = 1) -> None:
        self.count += count
        self.details.append(detail)

    def skip(self, reason: str) -> None:
        self.skipped[reason] += 1


class Pass(ABC):
    """A transformation of a model that does not change what it computes. Concrete passes are final.

    Its name is its class's name: a verb and a thing.
    """

    @property
    def name(self) -> str:
        return type(self).__name__

    def requires(self, model: ir.Model) -> str | None:
        """Why the pass cannot run on ``model``, or None."""
        return None

    @abstractmethod
    def call(self, model: ir.Model, changes: Changes) -> ir.Model:
        """Change ``model`` in place, or return another, and record every change."""

    @final
    def __call__(self, model: ir.Model) -> tuple[ir.Model, PassReport]:
        """Run the pass.

        Raises:
            InvalidModel: it broke the model; the line names the pass.
            ToolkitError: what it asks of the user does not hold.
        """
        changes, before, start = Changes(), node_count(model), time.perf_counter_ns()
        if (reason := self.requires(model)) is not None:
            changes.skip(reason)
        else:
            model = self._guarded(model, changes)
        ms = round((time.perf_counter_ns() - start) / 1e6, 3)
        details = tuple(changes.details[:_DETAILS_KEPT])
        skipped = dict(sorted(changes.skipped.items()))
        return model, PassReport(self.name, changes.count, details, skipped, before, node_count(model), ms)

    def _guarded(self, model: ir.Model, changes: Changes) -> ir.Model:
        try:
            model = self.call(model, changes)
            if changes.count:
                check_model(model)
        except InvalidModel as exc:
            raise InvalidModel(f"{self.name}: {exc.what}", where=exc.where, got=exc.got) from exc
        except ToolkitError:
            raise
        except Exception as exc:
            raise InvalidModel(
                f"{self.name} failed on this model", got=f"{type(exc).__name__}: {one_line(exc)}"
            ) from exc
        return model


def node_count(model: ir.Model) -> int:
    return sum(1 for _ in every_node(model))


def listed(names: Iterable[str | None]) -> str:
    """Names for a detail line."""
    return ", ".join(name or "?" for name in names)
