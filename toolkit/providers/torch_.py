"""PyTorch itself: the baseline that exports are compared with, and the float64 reference. Never chosen by auto.

It opens no ONNX. What it opens is an ``nn.Module`` that the layers above built (:func:`open_module_session`), or a
saved ExportedProgram, which is code and therefore wants the option ``trust``.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

import toolkit.machine as machine
from toolkit.errors import (
    InvalidModel,
    InvalidTarget,
    MissingDependency,
    ProviderUnavailable,
    UsageError,
    import_failed,
)
from toolkit.files import existing_file
from toolkit.providers.base import Availability, Available, Placement, Provider, Unavailable, first_line
from toolkit.providers.device import Device, DeviceTimes
from toolkit.providers.nvidia_devices import NvidiaDevice, split_by_events
from toolkit.providers.session import Execution, Session
from toolkit.targets import Target
from toolkit.tensors import FLOATS, Array, Dim, Feeds, TensorSpec, numpy_dtype

if TYPE_CHECKING:
    import torch

OPTIONS = ("compile", "compile_mode", "dtype", "trust")
_COMPUTE_DTYPES = ("float64", "float32", "float16", "bfloat16")


def import_torch() -> Any:
    """The torch module.

    Raises:
        MissingDependency: it is not installed.
        ProviderUnavailable: it is, and cannot be imported.
    """
    try:
        import torch
    except ImportError as exc:
        raise import_failed(exc, "torch", "export", "running PyTorch modules") from exc
    return torch


def to_tensor(array: Array) -> torch.Tensor:
    """A tensor with its own memory; bfloat16 arrays come from ml_dtypes."""
    torch = import_torch()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(array.view(np.int16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_array(tensor: torch.Tensor) -> Array:
    """A numpy copy of a tensor; bfloat16 becomes ml_dtypes' bfloat16."""
    torch = import_torch()
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return np.array(tensor.view(torch.int16).numpy()).view(numpy_dtype("bfloat16"))
    return np.array(tensor.numpy())


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


@final
class TorchEngine:
    """A module that is called with one tensor per input, in order, and answers one per output, in any structure.

    The module is used as it is, in its own precision, unless the target names a ``dtype``: then it is converted for
    good, floating point inputs are converted on the way in, and answers have that type.

    Args:
        call: how to call the module, where calling it directly is not it.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        target: Target,
        call: Callable[..., Any] | None = None,
    ) -> None:
        torch = import_torch()
        options = target.engine_options
        self.inputs, self.outputs, self._target = tuple(inputs), tuple(outputs), target
        self._device = torch.device(target.device or "cpu")
        self.device = self._found_device()
        self._cast = options.get("dtype")
        if self._cast not in (None, *_COMPUTE_DTYPES):
            raise InvalidTarget(
                "unknown dtype", where="dtype", got=self._cast, expected=f"one of: {', '.join(_COMPUTE_DTYPES)}"
            )
        if self._cast is not None:
            self.outputs = tuple(_cast_spec(spec, str(self._cast)) for spec in self.outputs)
        self._threads = target.threads or machine.usable_cores()
        self._module = module.to(self._device)
        if self._cast is not None:
            self._module = module.to(getattr(torch, str(self._cast)))
        self._call: Any = call or self._module
        self._how = "eager"
        if options.get("compile"):
            self._how = "torch.compile"
            self._call = torch.compile(self._call, dynamic=_dynamic(self.inputs), mode=options.get("compile_mode"))

    def run(self, feeds: Feeds) -> dict[str, Array]:
        torch = import_torch()
        # A process has one number of threads; set where it is used, since another session may want another one.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        return self._named(self._leaves([self._fed(feeds[spec.name]) for spec in self.inputs]))

    def _leaves(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        torch = import_torch()
        with torch.inference_mode():
            return list(torch.utils._pytree.tree_leaves(self._call(*tensors)))

    def _named(self, leaves: Sequence[Any]) -> dict[str, Array]:
        results = [to_array(leaf) for leaf in leaves if isinstance(leaf, import_torch().Tensor)]
        return {spec.name: array for spec, array in zip(self.outputs, results, strict=True)}

    def _found_device(self) -> Device | None:
        """What the GPU tells of this module; None on the CPU. The allocator's own peak starts anew here."""
        if self._device.type == "cpu":
            return None
        cuda = import_torch().cuda
        cuda.reset_peak_memory_stats(self._device)
        allocated = functools.partial(cuda.max_memory_allocated, self._device)
        return NvidiaDevice(self._device.index or 0, lambda: self._timed, allocated)

    def _timed(self, feeds: Feeds) -> DeviceTimes:
        """One call between events on the current stream."""
        events = [import_torch().cuda.Event(enable_timing=True) for _ in range(4)]
        events[0].record()
        tensors = [self._fed(feeds[spec.name]) for spec in self.inputs]
        events[1].record()
        leaves = self._leaves(tensors)
        events[2].record()
        self._named(leaves)
        events[3].record()
        return split_by_events(events)

    def _fed(self, array: Array) -> torch.Tensor:
        tensor = to_tensor(array).to(self._device)
        if self._cast is not None and tensor.is_floating_point():
            tensor = tensor.to(getattr(import_torch(), str(self._cast)))
        return tensor

    def prove(self, feeds: Feeds) -> Execution:
        """Leaf modules by the precision of their parameters, which is what torch runs, in either form."""
        torch = import_torch()
        self.run(feeds)
        precisions: Counter[str] = Counter()
        for module in self._module.modules():
            own = next(module.parameters(recurse=False), None)
            if own is not None:
                precisions[dtype_name(own.dtype)] += 1
        leaves = sum(1 for module in self._module.modules() if not any(module.children()))
        return Execution(
            provider="PyTorch",
            version=str(torch.__version__),
            device=str(self._device),
            threads=int(torch.get_num_threads()),
            nodes_by_provider={"PyTorch": leaves},
            executed_precision=dict(precisions),
            notes=(self._how,),
        )

    def close(self) -> None:
        del self._module, self._call


def _cast_spec(spec: TensorSpec, dtype: str) -> TensorSpec:
    return TensorSpec(spec.name, dtype, spec.shape) if spec.dtype in FLOATS else spec


def _dynamic(specs: Sequence[TensorSpec]) -> bool | None:
    """Compile for any size where a dim has a name: one compilation per size is what nobody would ship."""
    return True if any(spec.dynamic_dims for spec in specs) else None


def open_module_session(
    module: torch.nn.Module,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    target: Target | None = None,
    name: str = "module",
) -> Session:
    """Open a module that is in memory already.

    Args:
        module: see :class:`TorchEngine`; ``toolkit.exporter.sources`` makes any module one of this kind.
        inputs: one per argument of its ``forward``.
        outputs: one per tensor it returns.
        target: eager on the CPU unless said otherwise.
        name: what errors call it.
    """
    provider = TorchProvider()
    target = target or Target(name="torch", provider="torch", device="cpu")
    provider.require(target)
    return Session(TorchEngine(module, inputs, outputs, target), provider.name, target, name)


@final
class TorchProvider(Provider):
    """PyTorch, eager or compiled."""

    name = "torch"
    accepts_onnx = False
    rank = None
    precisions = ("float64", "float32", "float16", "bfloat16")
    extra = "export"

    def probe(self, device: str = "") -> Availability:
        try:
            torch = import_torch()
        except (MissingDependency, ProviderUnavailable) as exc:
            return Unavailable(exc.what, exc.next_step or "")
        except OSError as exc:
            return Unavailable(f"torch does not load: {first_line(exc)}", "pip install --force-reinstall torch")
        devices = ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))
        wanted = "cuda:0" if device == "cuda" else device.lower()
        if wanted and wanted not in devices:
            return Unavailable(f"torch finds no device {device} here, only {', '.join(devices)}", "use torch:cpu")
        return Available(str(torch.__version__), devices)

    def known_options(self) -> tuple[str, ...]:
        return OPTIONS

    def open_engine(self, model: Path, target: Target) -> TorchEngine:
        if model.suffix != ".pt2":
            raise UsageError(
                "torch opens no ONNX file",
                where=model,
                expected="a .pt2 file, or a source such as zoo:NAME or FILE.py:FACTORY where a command takes one",
            )
        if not target.engine_options.get("trust"):
            raise UsageError(
                "a .pt2 file is code", where=model, next_step="set the option trust = true if you trust it"
            )
        return _program_engine(load_program(model), target)

    def place(self, model: Path, target: Target) -> Placement:
        return Placement({})


def _program_engine(program: Any, target: Target) -> TorchEngine:
    torch = import_torch()
    module = program.module()

    def call(*tensors: Any) -> Any:
        args, kwargs = torch.utils._pytree.tree_unflatten(list(tensors), program.call_spec.in_spec)
        return module(*args, **kwargs)

    return TorchEngine(module, *program_specs(program), target, call)


def load_program(path: Path) -> Any:
    """The ExportedProgram in a ``.pt2`` file; loading one can run code.

    Raises:
        FileProblem, InvalidModel: missing, or not such a file.
    """
    torch = import_torch()
    existing_file(path, "exported program")
    try:
        return torch.export.load(str(path))
    except Exception as exc:
        raise InvalidModel("not an ExportedProgram that this torch reads", where=path, got=first_line(exc)) from exc


def program_specs(program: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of an ExportedProgram; symbolic sizes keep the name their symbol has."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    inputs = tuple(_program_spec(name, values[name]) for name in signature.user_inputs if _is_tensor(values.get(name)))
    outputs = tuple(
        _program_spec(f"output_{index}" if len(signature.user_outputs) > 1 else "output", values[name])
        for index, name in enumerate(signature.user_outputs)
        if _is_tensor(values.get(name))
    )
    return inputs, outputs


def _is_tensor(value: object) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _program_spec(name: str, value: Any) -> TensorSpec:
    dims: tuple[Dim, ...] = tuple(dim if isinstance(dim, int) else str(dim).replace(" ", "") for dim in value.shape)
    return TensorSpec(name, dtype_name(value.dtype), dims)
