"""OpenVINO, driven natively: models compiled in the precision that the file says, proof from the runtime model."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, final

import numpy as np

import toolkit.machine as machine
from toolkit.errors import MissingDependency
from toolkit.providers.base import (
    Availability,
    Available,
    Execution,
    Placement,
    Prepared,
    Provider,
    Unavailable,
    first_line,
)
from toolkit.providers.fingerprint import cache_key
from toolkit.providers.onnx_wire import check_onnx
from toolkit.targets import Target
from toolkit.tensors import Array, Dim, Feeds, TensorSpec, numpy_dtype

# Properties that a target may set; source: openvino.properties, 2026.4. The precision hint is not among them: it
# belongs to Target.inference_precision, so that one place decides.
OPTIONS = (
    "CACHE_DIR", "CACHE_MODE", "COMPILATION_NUM_THREADS", "CPU_DENORMALS_OPTIMIZATION",
    "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "ENABLE_CPU_PINNING",
    "ENABLE_CPU_RESERVATION", "ENABLE_HYPER_THREADING", "ENABLE_MMAP", "EXECUTION_MODE_HINT", "KV_CACHE_PRECISION",
    "MODEL_DISTRIBUTION_POLICY", "PERFORMANCE_HINT_NUM_REQUESTS", "SCHEDULING_CORE_TYPE",
)  # fmt: skip

_DYNAMIC_QUANTIZATION = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_HINTS = {"bfloat16": "bf16", "float16": "f16", "": "f32"}
_DTYPES = {
    "boolean": "bool",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "string": "string",
}
_EXECUTED = {
    **_DTYPES, "i8": "int8", "u8": "int8", "i4": "int4", "u4": "int4", "i32": "int32", "i64": "int64", "u32": "uint32",
}  # fmt: skip
# Not work: they hold data or mark the model's edges.
_PASSIVE_LAYERS = ("Const", "Input", "Output", "Parameter", "Result")


@cache
def import_openvino() -> Any:
    """The openvino module.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import openvino
    except ImportError as exc:
        raise MissingDependency.of("openvino", "openvino", "running models with OpenVINO") from exc
    return openvino


@cache
def core() -> Any:
    """One Core per process: making another costs tens of milliseconds and finds the same devices."""
    return import_openvino().Core()


def _dtype(element: Any) -> str:
    name = str(element.get_type_name())
    if name in _DTYPES:
        return _DTYPES[name]
    return name.replace("u", "uint", 1) if name[0] == "u" else name.replace("i", "int", 1)


def _spec(port: Any, index: int) -> TensorSpec:
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
    if _DYNAMIC_QUANTIZATION in core().get_property(_device(target), "SUPPORTED_PROPERTIES"):
        # On by default, it rounds activations to int8 wherever weights are compressed: nobody asked for that.
        chosen[_DYNAMIC_QUANTIZATION] = 0
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
    graph = read_file(model)
    return core().compile_model(graph, _device(target), properties(target, _hint(graph, target)))


def import_blob(blob: Path, target: Target) -> Any:
    """The CompiledModel that :meth:`OpenvinoProvider.prepare` exported."""
    # The blob does not keep the precision it was compiled for, and the default would be bfloat16; so its name does.
    hint = blob.suffixes[-2].removeprefix(".")
    return core().import_model(blob.read_bytes(), _device(target), properties(target, hint))


def _device(target: Target) -> str:
    return target.device or "CPU"


def _hint(graph: Any, target: Target) -> str:
    return _HINTS[target.inference_precision] if target.inference_precision else _file_hint(graph)


@final
class OpenvinoEngine:
    """One compiled model with one infer request, which runs one caller at a time."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        # What infer() returns is not looked at; a view of it costs least, but of strings there are only copies.
        self._share_outputs = all(str(port.get_element_type().get_type_name()) != "string" for port in compiled.outputs)
        self.inputs = tuple(_spec(port, index) for index, port in enumerate(compiled.inputs))
        self.outputs = tuple(_spec(port, index) for index, port in enumerate(compiled.outputs))

    @property
    def compiled(self) -> Any:
        """The CompiledModel itself."""
        return self._compiled

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Inputs are read where they lie; outputs are copied, since the request writes the next ones over them.

        Half the overhead of handing the request a dict (28 against 61 µs on a model of four small layers).
        """
        request = self._request
        arrays = [_shareable(feeds[spec.name]) for spec in self.inputs]  # kept alive until the run is over
        with self._lock:
            for index, (spec, array) in enumerate(zip(self.inputs, arrays, strict=True)):
                request.set_input_tensor(index, _to_tensor(array, spec.dtype))
            request.infer(share_outputs=self._share_outputs)
            return {
                spec.name: _to_array(request.get_output_tensor(index), spec.dtype)
                for index, spec in enumerate(self.outputs)
            }

    def prove(self, feeds: Feeds) -> Execution:
        """The runtime model's nodes with the precision each was compiled for."""
        executed = Counter(_precision(info) for info in _working_nodes(self._compiled.get_runtime_model()))
        devices = self._compiled.get_property("EXECUTION_DEVICES")
        notes = [f"streams {self._compiled.get_property('NUM_STREAMS')}"]
        if _property(self._compiled, _DYNAMIC_QUANTIZATION) not in (None, 0):
            notes.append(
                "activations that meet compressed weights may be rounded to int8 on the fly, as the target asks"
            )
        if self._compiled.get_property("LOADED_FROM_CACHE"):
            notes.append("compiled model loaded from the cache")
        return Execution(
            provider="OpenVINO",
            version=version(),
            device=",".join(devices) if isinstance(devices, list) else str(devices),
            threads=int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            nodes_by_provider={"OpenVINO": sum(executed.values())},
            executed_precision=dict(executed),
            notes=tuple(notes),
        )

    def close(self) -> None:
        del self._request, self._compiled


def _shareable(array: Array) -> Array:
    """``array``, or a copy of it where OpenVINO cannot share its memory."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else np.array(array, order="C")


def _to_tensor(array: Array, dtype: str) -> Any:
    """A Tensor over ``array``'s own memory; strings are copied. numpy has no bfloat16 that OpenVINO knows."""
    openvino = import_openvino()
    if dtype == "bfloat16":
        return openvino.Tensor(array.view(np.uint16), openvino.Shape(array.shape), openvino.Type.bf16)
    return openvino.Tensor(array.astype(str)) if dtype == "string" else openvino.Tensor(array, shared_memory=True)


def _to_array(tensor: Any, dtype: str) -> Array:
    """A copy of a Tensor's content. OpenVINO hands out bfloat16 as if the bits were float16."""
    if dtype == "string":
        return np.array(tensor.str_data, dtype=object)
    return np.array(tensor.data).view(numpy_dtype(dtype)) if dtype == "bfloat16" else np.array(tensor.data)


def _working_nodes(graph: Any) -> Iterator[dict[str, str]]:
    """What the runtime model says of each node that computes, constants and what depends on them alone left out."""
    fixed: set[str] = set()
    for op in graph.get_ordered_ops():
        info = {key: _plain(value) for key, value in op.get_rt_info().items()}
        sources = [value.get_node().get_friendly_name() for value in op.input_values()]
        if info.get("layerType") == "Const" or (sources and fixed.issuperset(sources)):
            fixed.add(op.get_friendly_name())
        elif info.get("layerType") not in _PASSIVE_LAYERS:
            yield info


def _precision(info: dict[str, str]) -> str:
    """The precision a node computes in.

    The kernel's name ends in it. The node's own ``runtimePrecision`` is that of its first operands in memory, and says
    int8 of a float product with compressed weights; it decides only where the kernel's name tells nothing.
    """
    kernel = info.get("primitiveType", "").rpartition("_")[2].lower()
    own = info.get("runtimePrecision", "unknown")
    return _EXECUTED.get(kernel) or _EXECUTED.get(own, own)


def _property(compiled: Any, name: str) -> Any:
    """A property of a compiled model, None where its device has no such property."""
    return compiled.get_property(name) if name in compiled.get_property("SUPPORTED_PROPERTIES") else None


def _plain(value: Any) -> str:
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def version() -> str:
    """The engine's release, without the build hash: ``2026.4.1``."""
    return str(import_openvino().__version__).split("-", 1)[0]


@final
class OpenvinoProvider(Provider):
    """Intel's OpenVINO runtime, on the CPU and the other devices it finds."""

    name = "openvino"
    rank = 3
    # Not float64: it rounds to float32 whatever the file says.
    precisions = ("float32", "float16", "bfloat16", "int8", "int4")
    inference_precisions = ("bfloat16", "float16")
    extra = "openvino"
    placement_rules = "openvino.toml"

    def probe(self, device: str = "") -> Availability:
        try:
            devices = tuple(core().available_devices)
        except MissingDependency as exc:
            return Unavailable(exc.what, exc.next_step or "")
        except (RuntimeError, OSError) as exc:
            return Unavailable(f"openvino does not load: {first_line(exc)}", "pip install --force-reinstall openvino")
        if device and device.split(".")[0] not in {name.split(".")[0] for name in devices}:
            return Unavailable(
                f"OpenVINO finds no device {device} here, only {', '.join(devices)}", "install its driver"
            )
        return Available(version(), devices)

    def known_options(self) -> tuple[str, ...]:
        return OPTIONS

    def missing(self, target: Target) -> Unavailable | None:
        if target.inference_precision == "bfloat16" and _device(target) == "CPU" and not machine.has_bfloat16():
            return Unavailable("this CPU has no bfloat16 instructions", "use a target that computes in float32")
        return None

    def open_engine(self, model: Path, target: Target) -> OpenvinoEngine:
        return OpenvinoEngine(compile_file(model, target))

    def open_prepared(self, prepared: Path, target: Target) -> OpenvinoEngine:
        return OpenvinoEngine(import_blob(prepared, target))

    def place(self, model: Path, target: Target) -> Placement:
        """OpenVINO's own answer: what its plugin supports, and the operators its reader cannot translate."""
        graph = read_file(model)
        supported = core().query_model(graph, _device(target))
        taken: Counter[str] = Counter()
        refused: dict[str, str] = {}
        for op in graph.get_ops():
            if op.get_friendly_name() in supported:
                taken[op.get_type_name()] += 1
            else:
                refused[op.get_type_name()] = "not supported by the plugin"
        return Placement(
            {name: count for name, count in taken.items() if name not in (*_PASSIVE_LAYERS, "Constant")}, refused
        )

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared:
        """Write the compiled model's blob into ``folder``."""
        compiled = compile_file(model, target)
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        output = folder / f"{model.stem}.{hint}.blob"
        output.write_bytes(compiled.export_model().getvalue())
        note = "OpenVINO's compiled blob; valid for this CPU and version only"
        return Prepared(output.name, self.prepared_key(model, target), note)

    def prepared_key(self, model: Path, target: Target) -> str:
        return cache_key(model, target, version(), machine.cpu_model(), machine.cpu_features())
