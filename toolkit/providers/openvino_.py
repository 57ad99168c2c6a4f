"""OpenVINO's models and options: compiled in the precision that the file says, with no rounding of the engine's own."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import toolkit.machine as machine
from toolkit.errors import import_failed
from toolkit.onnxfile.reading import check_onnx
from toolkit.targets import Target
from toolkit.tensors import Dim, TensorSpec

# Properties that a target may set; source: openvino.properties, 2026.4. The precision hint is not among them: it
# belongs to Target.inference_precision, so that one place decides.
OPTIONS = (
    "CACHE_DIR", "CACHE_MODE", "COMPILATION_NUM_THREADS", "CPU_DENORMALS_OPTIMIZATION",
    "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "ENABLE_CPU_PINNING",
    "ENABLE_CPU_RESERVATION", "ENABLE_HYPER_THREADING", "ENABLE_MMAP", "EXECUTION_MODE_HINT", "KV_CACHE_PRECISION",
    "MODEL_DISTRIBUTION_POLICY", "PERFORMANCE_HINT_NUM_REQUESTS", "SCHEDULING_CORE_TYPE",
)  # fmt: skip
OPTION_VALUES: Mapping[str, tuple[str, ...] | type] = {
    "CACHE_MODE": ("OPTIMIZE_SIZE", "OPTIMIZE_SPEED"),
    "CPU_DENORMALS_OPTIMIZATION": bool,
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": int,
    "ENABLE_CPU_PINNING": bool,
    "ENABLE_CPU_RESERVATION": bool,
    "ENABLE_HYPER_THREADING": bool,
    "ENABLE_MMAP": bool,
    "EXECUTION_MODE_HINT": ("PERFORMANCE", "ACCURACY"),
    "SCHEDULING_CORE_TYPE": ("ANY_CORE", "PCORE_ONLY", "ECORE_ONLY"),
}

DYNAMIC_QUANTIZATION = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_HINTS = {"bfloat16": "bf16", "float16": "f16", "": "f32"}
DTYPES = {
    "boolean": "bool",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "string": "string",
}


@cache
def import_openvino() -> Any:
    """The openvino module.

    Raises:
        MissingDependency: it is not installed.
        ProviderUnavailable: it is, and cannot be imported.
    """
    try:
        import openvino
    except ImportError as exc:
        raise import_failed(exc, "openvino", "openvino", "running models with OpenVINO") from exc
    return openvino


@cache
def core() -> Any:
    """One Core per process: making another costs tens of milliseconds and finds the same devices."""
    return import_openvino().Core()


def _dtype(element: Any) -> str:
    name = str(element.get_type_name())
    if name in DTYPES:
        return DTYPES[name]
    return name.replace("u", "uint", 1) if name[0] == "u" else name.replace("i", "int", 1)


def port_spec(port: Any, index: int) -> TensorSpec:
    name = _port_name(port, index)
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return TensorSpec(name, _dtype(port.get_element_type()), None)
    dims: list[Dim] = []
    for axis, dim in enumerate(shape):
        # OpenVINO drops the names of ONNX dims, so equal dims cannot be told from different ones: each gets its own
        # name, but a leading dynamic dim is the batch.
        dims.append(dim.get_length() if dim.is_static else "batch" if axis == 0 else f"{name}_dim{axis}")
    return TensorSpec(name, _dtype(port.get_element_type()), tuple(dims))


def _port_name(port: Any, index: int) -> str:
    """The port's ONNX name; a port that lost its name keeps its node's."""
    node_name = str(port.get_node().get_friendly_name()).removesuffix("/sink_port_0")
    names = sorted(port.get_names())
    return node_name if node_name in names or not names else str(names[0])


def properties(target: Target, hint: str) -> dict[str, Any]:
    """What ``compile_model`` is given for ``target``; every choice is set, so that no default of the engine decides."""
    chosen: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if target.mode == "throughput" else "LATENCY",
        "INFERENCE_NUM_THREADS": target.threads or machine.usable_cores(),
        "INFERENCE_PRECISION_HINT": hint,
    }
    if DYNAMIC_QUANTIZATION in core().get_property(device_of(target), "SUPPORTED_PROPERTIES"):
        # On by default, it rounds activations to int8 wherever weights are compressed: nobody asked for that.
        chosen[DYNAMIC_QUANTIZATION] = 0
    if target.streams:
        chosen["NUM_STREAMS"] = target.streams
    chosen.update(
        {key: str(value) if isinstance(value, str) else value for key, value in target.engine_options.items()}
    )
    return chosen


def _file_hint(model: Any) -> str:
    """The precision the file was written in: bf16 or f16 when most of its floating constants are, else f32."""
    counts: Counter[str] = Counter()
    for op in model.get_ops():
        if op.get_type_name() == "Constant":
            counts[str(op.get_element_type().get_type_name())] += op.get_byte_size()
    most = max(("f32", "f64", "bf16", "f16"), key=lambda name: counts[name])
    return most if most in ("bf16", "f16") else "f32"


def read_file(model: Path) -> Any:
    """The graph in a file."""
    if model.suffix == ".onnx":
        check_onnx(model)  # else OpenVINO tries it as one of the other formats it knows, and prints what it finds
    return core().read_model(str(model))


def compile_file(model: Path, target: Target) -> Any:
    """The CompiledModel of an ONNX file or an OpenVINO IR (.xml with its .bin)."""
    return compile_graph(read_file(model), target)


def compile_graph(graph: Any, target: Target, more: Mapping[str, Any] | None = None) -> Any:
    """The CompiledModel of a graph in memory; ``more`` are properties beyond the target's."""
    chosen = {**properties(target, _hint(graph, target)), **(more or {})}
    return core().compile_model(graph, device_of(target), chosen)


def import_blob(blob: Path, target: Target) -> Any:
    """The CompiledModel that :meth:`OpenvinoProvider.prepare` exported."""
    # The blob does not keep the precision it was compiled for, and the default would be bfloat16; so its name does.
    hint = blob.suffixes[-2].removeprefix(".")
    return core().import_model(_mapped(blob), device_of(target), properties(target, hint))


# Mapped blobs by path and state. They stay for the life of the process: a request that still runs while its session is
# closed reads weights from there. Mapped pages are the file's own, and cost no memory that the system cannot take back.
_MAPPED: dict[tuple[str, int, int, int], Any] = {}


def _mapped(blob: Path) -> Any:
    """A Tensor over the file's bytes, which are read when they are needed: the blob's weights are used where they lie.

    OpenVINO's own ``tensor_from_file`` reads the whole file first (100 MB: 0.1 s).
    """
    with blob.open("rb") as handle:
        facts = os.fstat(handle.fileno())
        key = (str(blob.resolve()), facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if key not in _MAPPED:
            # Private and writable, since a Tensor over read-only memory is a copy; nothing writes to it.
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
            _MAPPED[key] = import_openvino().Tensor(np.frombuffer(content, np.uint8), shared_memory=True)
        return _MAPPED[key]


def device_of(target: Target) -> str:
    return target.device or "CPU"


def _hint(graph: Any, target: Target) -> str:
    return _HINTS[target.inference_precision] if target.inference_precision else _file_hint(graph)


def version() -> str:
    """The engine's release, without the build hash: ``2026.4.1``."""
    return str(import_openvino().__version__).split("-", 1)[0]
