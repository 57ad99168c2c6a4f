"""Whether an optimized model still computes what its source does, and if not, which pass is to blame."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import msgspec
import onnx_ir as ir

from toolkit.errors import ParityError, ToolkitError, UsageError
from toolkit.graph.facts import OLDEST_OPSET, facts
from toolkit.graph.files import save_model
from toolkit.optimizer.runner import Run
from toolkit.providers.session import Session

if TYPE_CHECKING:
    from toolkit.targets import Target
    from toolkit.verifier.api import VerifyReport


@final
class Checker:
    """Keeps the source open while candidates are compared with it.

    Args:
        source: the model that is right by definition.
        dims: sizes to compare at where the source does not run at any.
        data: samples to compare on as well.
        target: where both run; models of an opset that no engine runs go to onnx's reference implementation.
    """

    def __init__(self, source: Path, *, dims: Mapping[str, int] | None, data: Any, target: str | Target) -> None:
        self._source, self._dims, self._data, self._target = source, dims, data, target
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._reference = self._stack.enter_context(self._open(self._source))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def require(self, run: Run, written: Path, output: Path) -> VerifyReport:
        """Compare ``written``, the result of ``run``, with the source.

        Raises:
            ParityError: they do not agree; the pass that did it is found by bisection and named.
            UsageError: the source itself runs at none of the shapes that were tried, or draws random numbers.
        """
        found = self._compare(written)
        if not isinstance(found, str) and found.passed:
            return msgspec.structs.replace(found, candidate=str(output))
        raise self._blamed(run, found if isinstance(found, str) else found.reason)

    def _blamed(self, run: Run, reason: str) -> ToolkitError:
        """The error that names the pass at fault, or says that no pass is."""
        if not self._agrees(self._source):
            return UsageError(
                "the model answers differently each time, so nothing can be compared with it",
                where=self._source,
                got=reason,
                next_step="--no-check writes the result without a comparison",
            )
        culprit = run.first_bad_step(self._is_good)
        if culprit is None:
            return ParityError("writing the model changed what it computes", where=self._source, got=reason)
        return ParityError(
            f"{culprit.name} changed what the model computes",
            where=self._source,
            got=reason,
            next_step=f"nothing was written; --skip {culprit.name} leaves it out, and please report it",
        )

    def _compare(self, candidate: Path) -> VerifyReport | str:
        """The comparison, or why the candidate cannot be opened."""
        from toolkit.runtime.sizes import running_sizes
        from toolkit.verifier.api import verify

        try:
            session = self._open(candidate)
        except ToolkitError as exc:
            return f"it cannot be opened: {exc}"
        with session:
            try:
                return verify(self._reference, session, dims=self._dims, data=self._data)
            except UsageError:
                sizes = running_sizes(self._reference, self._dims)
                if sizes is None:
                    raise
            # Where only long windows run, a batch may still vary; and whatever is compared next need not search again.
            self._dims = {name: size for name, size in sizes.items() if size > 1 or name in (self._dims or {})}
            return verify(self._reference, session, dims=self._dims, data=self._data)

    def _is_good(self, model: ir.Model) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self._source.name
            save_model(model, path)
            return self._agrees(path)

    def _agrees(self, candidate: Path) -> bool:
        found = self._compare(candidate)
        return not isinstance(found, str) and found.passed

    def _open(self, path: Path) -> Session:
        from toolkit.optimizer.reference import reference_session
        from toolkit.runtime.loader import load

        found = facts(path)
        if "ai.onnx" in found.domains and found.opset < OLDEST_OPSET:
            return reference_session(path)
        return load(path, self._target)
