"""NVIDIA GPUs through ONNX Runtime's TensorRT execution provider, with CUDA for what TensorRT does not take.

Precision stands in the graph: without the flags trt_fp16_enable, trt_bf16_enable and trt_int8_enable, which no target
may set, ONNX Runtime builds strongly typed networks (microsoft/onnxruntime#18707), and TensorRT 11 has no other kind.

Engines are cached. ONNX Runtime names a cached engine by the graph's name and shapes, and has answered with the
engine of another model (#32254, #6455, #22244); so each model has a folder of its own, named by a hash of all an
engine depends on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import final

import msgspec

from toolkit.errors import EngineError, InvalidTarget
from toolkit.files import cache_folder, write_atomic
from toolkit.providers import cuda
from toolkit.providers.base import Availability, Placement, Prepared, Provider, Unavailable
from toolkit.providers.cuda_available import NAME as CUDA
from toolkit.providers.device import Device
from toolkit.providers.fingerprint import cache_key
from toolkit.providers.nvidia_devices import NvidiaDevice
from toolkit.providers.onnxruntime_ import (
    OUTWARD_KEYS,
    SESSION_ATTRIBUTES,
    SESSION_KEYS,
    SESSION_VALUES,
    Chain,
    inference_session,
    option_text,
    session_options,
    specs,
)
from toolkit.providers.onnxruntime_device import BoundEngine, GraphEngine
from toolkit.providers.onnxruntime_engine import OnnxRuntimeEngine, place
from toolkit.providers.session import Engine, Execution
from toolkit.providers.tensorrt_available import NAME, probe, version
from toolkit.providers.tensorrt_shapes import (
    SizeRange,
    check_ranges,
    complete_ranges,
    parse_ranges,
    profile_options,
)
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds, TensorSpec

# Options that a target may set, under ONNX Runtime's names. Not among them: device, precision flags, cache and context
# files, which this module decides. Source: tensorrt_execution_provider_info.cc, 1.31.
OPTIONS = (
    "trt_auxiliary_streams", "trt_build_heuristics_enable", "trt_builder_optimization_level",
    "trt_context_memory_sharing_enable", "trt_cuda_graph_enable", "trt_detailed_build_log", "trt_engine_hw_compatible",
    "trt_extra_plugin_lib_paths", "trt_force_sequential_engine_build", "trt_layer_norm_fp32_fallback",
    "trt_max_partition_iterations", "trt_max_workspace_size", "trt_min_subgraph_size", "trt_op_types_to_exclude",
    "trt_preview_features", "trt_profile_max_shapes", "trt_profile_min_shapes", "trt_profile_opt_shapes",
    "trt_sparsity_enable", "trt_tactic_sources",
)  # fmt: skip
# This project's own: sizes by the name of the dim, ``batch=1:8:32,seq=1:128:512``.
PROFILE_DIMS = "profile_dims"
_PROFILES = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
_GRAPHS = "trt_cuda_graph_enable"
_TF32 = "NVIDIA_TF32_OVERRIDE"
# Beside the cached engines: the model's inputs, so that a second opening need not read the graph twice.
_INPUTS = "inputs.json"


def engine_folder(model: Path, target: Target) -> Path:
    """Where the engines of ``model`` on ``target`` are cached: a folder for each thing an engine depends on."""
    return cache_folder("tensorrt") / engine_key(model, target)


def engine_key(model: Path, target: Target) -> str:
    """Hash of the model and its weights, shapes and options (both in the target), versions and the very GPU."""
    device = target.device or "0"
    return cache_key(model, target, facts(device))


def facts(device: str) -> dict[str, str]:
    """What a built engine depends on beside the model: TensorRT, the driver and the very kind of GPU."""
    return {"versions": version(device), **cuda.gpu_facts(device)}


def model_inputs(model: Path, folder: Path) -> tuple[TensorSpec, ...]:
    """The model's inputs, from the note in its cache folder, else from the graph itself."""
    note = folder / _INPUTS
    if note.is_file():
        return msgspec.json.decode(note.read_bytes(), type=tuple[TensorSpec, ...])
    plain = Target(provider="", threads=1, engine_options={"graph_optimization_level": "ORT_DISABLE_ALL"})
    found = specs(inference_session(model, session_options(plain), [("CPUExecutionProvider", {})]).get_inputs())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(note, msgspec.json.encode(found))
    return found


def ranges_of(target: Target, inputs: tuple[TensorSpec, ...]) -> dict[str, SizeRange]:
    """The sizes that the engine is built for; empty where the target names ONNX Runtime's own profile options.

    Raises:
        InvalidTarget: ``profile_dims`` does not fit the model, or stands beside those options.
    """
    where = f"{target.name}: option {PROFILE_DIMS}"
    given = parse_ranges(str(target.engine_options.get(PROFILE_DIMS, "")), where)
    own = [key for key in _PROFILES if key in target.engine_options]
    if own and given:
        raise InvalidTarget("the sizes are given twice", where=where, got=f"also {own[0]}", expected="one of them")
    return {} if own else complete_ranges(inputs, given, where)


def options(
    target: Target, folder: Path, inputs: tuple[TensorSpec, ...], ranges: Mapping[str, SizeRange]
) -> dict[str, str]:
    """The execution provider's options for ``target``, with its caches in ``folder``."""
    return {
        "device_id": target.device or "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        # Timings are TensorRT's own and keyed by it to GPU and version, so all models of one GPU share them.
        "trt_timing_cache_path": str(folder.parent),
        **(profile_options(inputs, ranges) if ranges else {}),
        **{key: option_text(value) for key, value in target.engine_options.items() if key in OPTIONS},
    }


def chain(target: Target, chosen: Mapping[str, str]) -> Chain:
    """TensorRT first, CUDA for what it does not take."""
    return [(NAME, chosen), (CUDA, cuda.options(target))]


@final
class TensorrtEngine:
    """An engine that refuses sizes it was not built for, and says whose precision it runs."""

    parallel = 1

    def __init__(self, engine: BoundEngine | GraphEngine, ranges: Mapping[str, SizeRange], model: str) -> None:
        self._engine, self._ranges, self._model = engine, ranges, model
        self.inputs, self.outputs = engine.inputs, engine.outputs

    @property
    def device(self) -> Device | None:
        return self._engine.device

    def run(self, feeds: Feeds) -> dict[str, Array]:
        if self._ranges:
            check_ranges(self.inputs, feeds, self._ranges, self._model)
        return self._engine.run(feeds)

    def prove(self, feeds: Feeds) -> Execution:
        found = self._engine.prove(feeds)
        sizes = ", ".join(f"{dim}={sizes}" for dim, sizes in self._ranges.items())
        notes = (*found.notes, "strongly typed engines: each layer computes in the precision the file gives it")
        return msgspec.structs.replace(found, notes=(*notes, f"built for {sizes}") if sizes else notes)

    def close(self) -> None:
        self._engine.close()


def rule_out_tf32(target: Target) -> None:
    """TensorRT rounds float32 products to TF32 by default and ONNX Runtime has no option for it: NVIDIA's variable has.

    Raises:
        EngineError: the target wants TF32 and this process has it ruled out.

    Source: docs.nvidia.com/deeplearning/tensorrt, "TF32 inference": NVIDIA_TF32_OVERRIDE=0 when the engine is built.
    """
    if target.inference_precision != "tf32":
        os.environ[_TF32] = "0"
    elif os.environ.get(_TF32) == "0":
        raise EngineError(
            "TF32 is ruled out in this process", where=target.name, got=f"{_TF32}=0", next_step="use another process"
        )


def opened(
    model: Path, target: Target, chosen: Mapping[str, str], ranges: Mapping[str, SizeRange] | None
) -> TensorrtEngine:
    """``model`` with the options ``chosen``; ``ranges`` None means those that the target gives the opened model."""
    without_graphs = {key: value for key, value in chosen.items() if key != _GRAPHS}
    engine = OnnxRuntimeEngine(model, target, chain(target, chosen), chain(target, without_graphs))
    index = int(target.device or "0")
    # TensorRT's own graph is one per session: a second set of shapes has none.
    with_graphs = bool(target.engine_options.get(_GRAPHS))
    bound = GraphEngine(engine, "cuda", index, 1) if with_graphs else BoundEngine(engine, "cuda", index)
    bound.device = NvidiaDevice(index, None)
    return TensorrtEngine(bound, ranges_of(target, bound.inputs) if ranges is None else ranges, str(model))


@final
class TensorrtProvider(Provider):
    """ONNX Runtime's TensorRT execution provider. Untested in this project: no GPU was there (docs/providers.md)."""

    name = "tensorrt"
    rank = 1
    precisions = ("float32", "float16", "bfloat16", "int8", "int4")
    inference_precisions = ("tf32",)
    extra = "gpu"
    placement_rules = "tensorrt.toml"
    outward_options = (*OUTWARD_KEYS, "trt_extra_plugin_lib_paths")
    option_values = {  # noqa: RUF012
        **SESSION_VALUES,
        PROFILE_DIMS: str,
        "trt_builder_optimization_level": int,
        "trt_max_workspace_size": int,
        "trt_min_subgraph_size": int,
        _GRAPHS: bool,
    }

    def probe(self, device: str = "") -> Availability:
        return probe(device or "0")

    def missing(self, target: Target) -> Unavailable | None:
        return cuda.tf32_problem(target)

    def known_options(self) -> tuple[str, ...]:
        return (PROFILE_DIMS, *OPTIONS, *SESSION_KEYS, *SESSION_ATTRIBUTES)

    def open_engine(self, model: Path, target: Target) -> Engine:
        rule_out_tf32(target)
        folder = engine_folder(model, target)
        inputs = model_inputs(model, folder)
        ranges = ranges_of(target, inputs)
        return opened(model, target, options(target, folder, inputs, ranges), ranges)

    def open_prepared(self, prepared: Path, target: Target) -> Engine:
        """A file of EPContext nodes: the engines are inside, for the sizes that :meth:`prepare` gave them."""
        rule_out_tf32(target)
        chosen = {key: value for key, value in options(target, prepared.parent, (), {}).items() if "cache" not in key}
        return opened(prepared, target, chosen, None)

    def place(self, model: Path, target: Target) -> Placement:
        folder = engine_folder(model, target)
        inputs = model_inputs(model, folder)
        return place(model, target, chain(target, options(target, folder, inputs, ranges_of(target, inputs))))

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared:
        """Write a model of EPContext nodes with the built engines inside, which opens without the builder."""
        rule_out_tf32(target)
        cache = engine_folder(model, target)
        inputs = model_inputs(model, cache)
        output = folder / f"{model.stem}.context.onnx"
        chosen = options(target, cache, inputs, ranges_of(target, inputs)) | {
            "trt_dump_ep_context_model": "1",
            "trt_ep_context_file_path": str(output),
            "trt_ep_context_embed_mode": "1",
        }
        inference_session(model, session_options(target), chain(target, chosen))
        return Prepared(output.name, engine_key(model, target), "TensorRT engines for this GPU and these versions only")

    def prepared_key(self, model: Path, target: Target) -> str:
        return engine_key(model, target)

    def prepared_facts(self, target: Target) -> dict[str, str]:
        return facts(target.device or "0")
