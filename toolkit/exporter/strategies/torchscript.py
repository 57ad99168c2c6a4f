"""torch.jit's tracer, torch's former exporter: last, since it records whatever Python happened to do.

Anything that Python learns from a tensor while it traces becomes a constant in the graph. The tracer warns of that,
where nobody has switched warnings off; here the reads themselves are refused, and so are the warnings.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from toolkit.exporter.disguise import unnoticed
from toolkit.exporter.strategies.base import Candidate, Job, StrategyFailed, reason_of
from toolkit.graph.files import load_model

_READS = {
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "__len__", "__iter__", "__contains__",
    "__reversed__", "__array__", "__dlpack__", "item", "tolist", "numpy", "storage", "untyped_storage", "unbind_ints",
}  # fmt: skip
_COPIES = {"tensor", "as_tensor", "from_numpy", "new_tensor", "asarray"}
# The newest opset of the former exporter.
_OPSET = 20
_OWN, _TORCH = f"{Path(__file__).parent.parent}/", f"{Path(torch.__file__).parent}/"


def build(job: Job) -> Candidate:
    """Trace and translate.

    Raises:
        StrategyFailed: the trace froze something, or the exporter cannot.
    """
    if job.purity.items:
        raise StrategyFailed(f"the tracer would freeze what the module reads at {job.purity.items[0].where}")
    if job.purity.selections:
        raise StrategyFailed("the tracer cannot be trusted with results whose size depends on values")
    names = [spec.name for spec in job.specs]
    axes = {
        spec.name: {axis: dim for axis, dim in enumerate(spec.shape or ()) if isinstance(dim, str)}
        for spec in job.specs
    }
    reads = _Reads()
    with tempfile.TemporaryDirectory() as folder, _tracer_warnings() as found:
        path = Path(folder) / "model.onnx"
        try:
            with reads, torch.no_grad(), unnoticed():
                torch.onnx.export(
                    job.adapter, job.inputs(), str(path), dynamo=False, input_names=names, dynamic_axes=axes,
                    output_names=list(job.outputs), opset_version=min(job.opset or _OPSET, _OPSET),
                )  # fmt: skip
        except Exception as exc:
            raise StrategyFailed(reason_of(exc)) from exc
        problems = [*reads.found, *found()]
        if problems:
            raise StrategyFailed(f"the tracer froze a Python value: {problems[0]}")
        model = load_model(path)
        _load_weights(model)
    return Candidate(model, {})


def _load_weights(model: Any) -> None:
    """Read weights that lie beside the file, which is about to go."""
    import onnx_ir as ir

    ir.external_data.load_to_model(model)


@contextmanager
def _tracer_warnings() -> Iterator[Callable[[], list[str]]]:
    """Collect the tracer's warnings; inside the block no code can switch them off. Yields what asks for them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = warnings.simplefilter, warnings.filterwarnings
        for name in ("simplefilter", "filterwarnings"):
            setattr(warnings, name, lambda *_, **__: None)
        try:
            yield lambda: [
                str(item.message).split(". ")[0]
                for item in caught
                if issubclass(item.category, torch.jit.TracerWarning)
            ]
        finally:
            warnings.simplefilter, warnings.filterwarnings = kept


@final
class _Reads(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped to the checker
    """Notes every way in which the module's own code gets at a value of a tensor, warned about or not."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if torch._C._get_tracing_state() is not None and _reads(name, args) and (place := _user_place()):
            self.found.append(f"{name.strip('_')}() at {place}")
        return func(*args, **(kwargs or {}))


def _reads(name: str, args: Any) -> bool:
    if name in _READS:
        return bool(args) and isinstance(args[0], Tensor)
    return name in _COPIES and any(isinstance(leaf, Tensor) for leaf in tree_leaves(args[-1:]))


def _user_place() -> str:
    """File and line of the code that asked, empty where torch's own code did without being asked by anyone else."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(f"{_TORCH}onnx/"):
        return ""
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else ""
