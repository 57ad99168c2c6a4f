"""What a module answers: in its own precision, and in float64 as the reference that exports are judged against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch

import toolkit.machine as machine
from toolkit.exporter.adapter import Adapter
from toolkit.exporter.rounding import Jitter
from toolkit.exporter.values import usual
from toolkit.exporter.widen import widened, widened_bytes
from toolkit.providers.torch_ import to_array, to_tensor
from toolkit.tensors import FLOATS, Array, Dim, Feeds, TensorSpec

# Part of the free memory that the reference may take: outputs, activations and the engine need the rest.
_MEMORY_SHARE = 0.6
_JITTERED_RUNS = 4


@final
class Reference:
    """Runs one module on arrays."""

    def __init__(self, adapter: Adapter, specs: Sequence[TensorSpec]) -> None:
        self._adapter, self._specs = adapter, tuple(specs)
        needed, free = widened_bytes(adapter.module), free_memory_bytes()
        self.note = ""
        self.precision = "float64"
        if needed > _MEMORY_SHARE * free:
            self.precision = "float32"
            self.note = f"float64 would take {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB that are free"

    def try_run(self, dims: Mapping[str, int]) -> Exception | None:
        """What the module raises at these sizes, or None."""
        try:
            self.own(usual(self._specs, dims, seed=0))
        except Exception as exc:  # noqa: BLE001  # whatever the person's code raises is the answer
            return exc
        return None

    def own(self, feeds: Feeds) -> dict[str, Array]:
        """In the module's own precision."""
        with torch.no_grad():
            outputs = self._adapter.named(*[to_tensor(feeds[spec.name]) for spec in self._specs])
            return {name: to_array(tensor) for name, tensor in outputs}

    def exact(self, cases: Sequence[Feeds]) -> list[dict[str, Array]]:
        """In float64, or in the module's own precision where float64 does not fit or does not run (see ``note``)."""
        if self.precision == "float64":
            try:
                with widened(self._adapter.module), torch.no_grad():
                    return [self._wide(feeds) for feeds in cases]
            except (RuntimeError, TypeError, ValueError, NotImplementedError) as exc:
                self.precision = "float32"
                self.note = f"the module does not run in float64: {str(exc).splitlines()[0][:120]}"
        return [self.own(feeds) for feeds in cases]

    def _wide(self, feeds: Feeds) -> dict[str, Array]:
        tensors = [to_tensor(feeds[spec.name]) for spec in self._specs]
        wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]
        return {name: to_array(tensor) for name, tensor in self._adapter.named(*wide)}

    def rounding(self, feeds: Feeds, reference: Mapping[str, Array]) -> dict[str, Array]:
        """The module's answers in its own precision, each element the farthest from the reference among several runs.

        The first run is torch's own, the others are jittered (:mod:`toolkit.exporter.rounding`).
        """
        worst = self.own(feeds)
        for seed in range(_JITTERED_RUNS):
            with Jitter(seed):
                other = self.own({spec.name: _jittered(spec, feeds[spec.name], seed) for spec in self._specs})
            for name, wanted in reference.items():
                if worst[name].dtype.name in FLOATS and other[name].shape == worst[name].shape:
                    farther = np.abs(other[name] - wanted) > np.abs(worst[name] - wanted)
                    worst[name] = np.asarray(np.where(farther, other[name], worst[name]))
        return worst


def _jittered(spec: TensorSpec, array: Array, seed: int) -> Array:
    """Floats moved by one unit in the last place, up or down."""
    if spec.dtype not in ("float32", "float64", "float16"):
        return array
    signs = np.random.default_rng(seed).choice([-1, 1], array.shape)
    return np.asarray(np.nextafter(array, np.where(signs > 0, np.inf, -np.inf).astype(array.dtype)))


def free_memory_bytes() -> int:
    """Memory that may still be taken: the kernel's estimate, within the container's limit."""
    limit = machine.memory_limit_bytes()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return limit
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), limit)
    return min(available, limit) if limit else available


def output_specs(answers: Sequence[tuple[Mapping[str, int], Mapping[str, Array]]]) -> tuple[TensorSpec, ...]:
    """Specs of the outputs from what the module answered at several sizes: a size that follows a dim gets its name.

    Args:
        answers: sizes of the named dims and what came out.
    """
    return tuple(_output_spec(name, answers) for name in answers[0][1])


def _output_spec(name: str, answers: Sequence[tuple[Mapping[str, int], Mapping[str, Array]]]) -> TensorSpec:
    shapes = [outputs[name].shape for _, outputs in answers]
    if len({len(shape) for shape in shapes}) != 1:
        return TensorSpec(name, answers[0][1][name].dtype.name, None)
    dims: list[Dim] = []
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        followed = [
            dim
            for dim in answers[0][0]
            if all(given[dim] == size for (given, _), size in zip(answers, sizes, strict=True))
        ]
        if len(set(sizes)) == 1 and not followed:
            dims.append(sizes[0])
        else:
            dims.append(followed[0] if followed else f"{name}_dim{axis}")
    return TensorSpec(name, answers[0][1][name].dtype.name, tuple(dims))
