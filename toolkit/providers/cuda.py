"""NVIDIA GPUs through ONNX Runtime's CUDA execution provider."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import final

import toolkit.machine as machine
from toolkit.providers.base import Availability, Placement, Prepared, Provider, Unavailable
from toolkit.providers.cuda_available import NAME, probe
from toolkit.providers.cuda_events import CudaStream
from toolkit.providers.fingerprint import cache_key
from toolkit.providers.nvidia import Driver, driver, kernel_module
from toolkit.providers.nvidia_devices import NvidiaDevice, Timed
from toolkit.providers.onnxruntime_ import (
    OUTWARD_KEYS,
    SESSION_ATTRIBUTES,
    SESSION_KEYS,
    SESSION_VALUES,
    Chain,
    import_onnxruntime,
    option_text,
)
from toolkit.providers.onnxruntime_device import BoundEngine, GraphEngine
from toolkit.providers.onnxruntime_engine import OnnxRuntimeEngine, as_it_is, place, prepare
from toolkit.providers.session import Engine
from toolkit.targets import Target

# Options of the execution provider that a target may set, under ONNX Runtime's names. Not among them are device_id and
# use_tf32: Target.device and Target.inference_precision say those. Source: cuda_execution_provider_info.cc, 1.31.
OPTIONS = (
    "arena_extend_strategy", "cudnn_conv1d_pad_to_nc1d", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace",
    "do_copy_in_default_stream", "enable_cuda_graph", "enable_skip_layer_norm_strict_mode", "fuse_conv_bias",
    "gpu_mem_limit", "prefer_nhwc", "sdpa_kernel", "tunable_op_enable", "tunable_op_max_tuning_duration_ms",
    "tunable_op_tuning_enable", "use_ep_level_unified_stream",
)  # fmt: skip
_GRAPHS = "enable_cuda_graph"
# Each CUDA graph keeps its own tensors on the GPU; nobody serves more shapes than this and wants graphs.
MAX_GRAPHS = 16


def options(target: Target) -> dict[str, str]:
    """The execution provider's options for ``target``. TF32 is off unless the target names it."""
    chosen = {"device_id": target.device or "0", "use_tf32": str(int(target.inference_precision == "tf32"))}
    return chosen | {key: option_text(value) for key, value in target.engine_options.items() if key in OPTIONS}


def chains(target: Target) -> tuple[Chain, Chain]:
    """The execution providers for ``target``, and the same without CUDA graphs, which forbid an instrumented run."""
    chosen = options(target)
    return [(NAME, chosen)], [(NAME, {key: value for key, value in chosen.items() if key != _GRAPHS})]


def tf32_problem(target: Target) -> Unavailable | None:
    """Why ``target`` cannot have the TF32 it names, if it cannot."""
    if target.inference_precision != "tf32":
        return None
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return Unavailable("NVIDIA_TF32_OVERRIDE=0 forbids TF32 in this process", "unset NVIDIA_TF32_OVERRIDE")
    found = driver()
    if isinstance(found, Driver) and not found.gpus[int(target.device or "0")].has_tf32:
        return Unavailable("this GPU has no TF32, which came with compute capability 8.0", "use the target cuda-fp32")
    return None


def gpu_facts(device: str) -> dict[str, str]:
    """What a prepared form depends on beside the model: engine, driver and the very kind of GPU."""
    found = driver()
    facts = {"onnxruntime": str(import_onnxruntime().__version__)}
    if not isinstance(found, Driver):
        return facts
    gpu = found.gpus[int(device or "0")]
    return {
        **facts,
        "GPU": f"{gpu.name}, {gpu.memory_bytes} bytes",
        "compute capability": gpu.compute,
        "driver": kernel_module() or ".".join(map(str, found.cuda)),
    }


def timed_session(model: Path, target: Target, index: int) -> Timed:
    """Opens ``model`` once more, on a stream of ours: ONNX Runtime's own streams are out of reach for events."""
    stream = CudaStream(index)
    chosen = {**options(target), "user_compute_stream": str(stream.pointer)}
    engine = BoundEngine(OnnxRuntimeEngine(model, target, [(NAME, chosen)]), "cuda", index)
    return lambda feeds: engine.timed(feeds, stream)


@final
class CudaProvider(Provider):
    """ONNX Runtime's CUDA execution provider; what it does not take runs on the CPU and is in the proof."""

    name = "cuda"
    rank = 2
    precisions = ("float64", "float32", "float16", "bfloat16", "int8", "int4")
    inference_precisions = ("tf32",)
    extra = "gpu"
    placement_rules = "cuda.toml"
    outward_options = OUTWARD_KEYS
    native_forms = False
    option_values = {  # noqa: RUF012
        **SESSION_VALUES,
        "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
        "cudnn_conv_algo_search": ("DEFAULT", "EXHAUSTIVE", "HEURISTIC"),
        "gpu_mem_limit": int,
        _GRAPHS: bool,
    }

    def probe(self, device: str = "") -> Availability:
        return probe(device or "0")

    def missing(self, target: Target) -> Unavailable | None:
        return tf32_problem(target)

    def known_options(self) -> tuple[str, ...]:
        return OPTIONS + SESSION_KEYS + SESSION_ATTRIBUTES

    def open_engine(self, model: Path, target: Target) -> Engine:
        engine = OnnxRuntimeEngine(model, target, *chains(target))
        index = int(target.device or "0")
        if target.engine_options.get(_GRAPHS):
            graphs = GraphEngine(engine, "cuda", index, MAX_GRAPHS)
            graphs.device = NvidiaDevice(index, None)  # a graph is one launch: its inside cannot be timed so
            return graphs
        bound = BoundEngine(engine, "cuda", index)
        bound.device = NvidiaDevice(index, partial(timed_session, model, target, index))
        return bound

    def open_prepared(self, prepared: Path, target: Target) -> Engine:
        return self.open_engine(prepared, as_it_is(target))

    def place(self, model: Path, target: Target) -> Placement:
        return place(model, target, chains(target)[0])

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared:
        return prepare(model, target, folder, chains(target)[1], self.prepared_key(model, target))

    def prepared_key(self, model: Path, target: Target) -> str:
        return cache_key(model, target, self.prepared_facts(target))

    def prepared_facts(self, target: Target) -> dict[str, str]:
        """What this leaves to the CPU is optimized for it."""
        return {**gpu_facts(target.device), **machine.cpu_facts()}
