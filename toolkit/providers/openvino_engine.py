"""One compiled OpenVINO model: it runs arrays where they lie, and proves what ran from the runtime model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, final

import numpy as np

from toolkit.providers.fair import FairPool
from toolkit.providers.openvino_ import DTYPES, DYNAMIC_QUANTIZATION, import_openvino, port_spec, version
from toolkit.providers.session import Execution
from toolkit.tensors import Array, Feeds, numpy_dtype

_INTEGERS = {
    "i4": "int4", "u4": "uint4", "i8": "int8", "u8": "uint8", "i16": "int16", "i32": "int32", "u32": "uint32",
    "i64": "int64",
}  # fmt: skip
# Up to here copying an array costs less than making a tensor over it and setting that (about 5 µs).
SMALL_BYTES = 1 << 16
# Not work: they hold data or mark the model's edges.
PASSIVE_LAYERS = ("Const", "Input", "Output", "Parameter", "Result")
# What computes products, sums over windows or recurrences.
ARITHMETIC_LAYERS = (
    "Convolution", "Deconvolution", "FullyConnected", "GroupConvolution", "LSTMSequence", "MatMul", "Pooling", "RNNSeq",
    "ScaledDotProductAttention",
)  # fmt: skip
# Their bodies are models of their own, which the runtime model does not show.
_CONTROL_FLOW = ("If", "Loop", "TensorIterator")


@final
class OpenvinoEngine:
    """One compiled model with as many infer requests as it has streams; a caller waits until one is free."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self.parallel = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests = FairPool([_Request(compiled.create_infer_request()) for _ in range(self.parallel)])
        # What infer() returns is not looked at; a view of it costs least, but of strings there are only copies.
        self._share_outputs = all(str(port.get_element_type().get_type_name()) != "string" for port in compiled.outputs)
        self.inputs = tuple(port_spec(port, index) for index, port in enumerate(compiled.inputs))
        self.outputs = tuple(port_spec(port, index) for index, port in enumerate(compiled.outputs))

    @property
    def compiled(self) -> Any:
        """The CompiledModel itself."""
        return self._compiled

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Inputs are read where they lie; outputs are copied, since the request writes the next ones over them.

        Two thirds of the overhead of handing the request a dict (45 against 64 µs on one small MatMul).
        """
        return self._run(feeds, {})

    def run_into(self, feeds: Feeds, outputs: dict[str, Array]) -> dict[str, Array]:
        """The same, with outputs copied into arrays that have their shapes."""
        return self._run(feeds, outputs)

    def _run(self, feeds: Feeds, into: dict[str, Array]) -> dict[str, Array]:
        request = self._requests.take()
        try:
            for index, spec in enumerate(self.inputs):
                request.feed(index, feeds[spec.name], spec.dtype)
            request.infer(self._share_outputs)
            return {
                spec.name: _to_array(request.output(index), spec.dtype, into.get(spec.name))
                for index, spec in enumerate(self.outputs)
            }
        finally:
            self._requests.give(request)

    def prove(self, feeds: Feeds) -> Execution:
        """The runtime model's nodes with the precision each was compiled for."""
        nodes = list(_working_nodes(self._compiled.get_runtime_model()))
        executed = Counter(node_precision(info) for info in nodes)
        devices = self._compiled.get_property("EXECUTION_DEVICES")
        notes = [f"streams {self._compiled.get_property('NUM_STREAMS')}"]
        if hidden := [info["layerType"] for info in nodes if info.get("layerType") in _CONTROL_FLOW]:
            notes.append(f"OpenVINO does not show the bodies of {', '.join(hidden)}")
        if _property(self._compiled, DYNAMIC_QUANTIZATION) not in (None, 0):
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

    def profiling_info(self) -> list[Any]:
        """What the performance counters of a model compiled with them say, averaged over its runs so far."""
        request = self._requests.take()
        try:
            return list(request.profiling_info())
        finally:
            self._requests.give(request)

    def close(self) -> None:
        self._requests.close()
        self._compiled = None


@final
class _Request:
    """An infer request. Small arrays are copied into input tensors that stay set, which costs less than setting one."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._own: dict[int, tuple[Any, Array]] = {}
        self._set: dict[int, Any] = {}
        self.output = request.get_output_tensor
        self.profiling_info = request.get_profiling_info

    def feed(self, index: int, array: Array, dtype: str) -> None:
        if array.nbytes > SMALL_BYTES or dtype in ("bfloat16", "string"):
            self._use(index, _to_tensor(_shareable(array), dtype))  # kept alive, and with it the array, by _set
            return
        own = self._own.get(index)
        if own is None or own[1].shape != array.shape:
            tensor = import_openvino().Tensor(np.zeros(array.shape, array.dtype))
            own = self._own[index] = (tensor, tensor.data)
        np.copyto(own[1], array)
        if self._set.get(index) is not own[0]:
            self._use(index, own[0])

    def _use(self, index: int, tensor: Any) -> None:
        self._request.set_input_tensor(index, tensor)
        self._set[index] = tensor

    def infer(self, share_outputs: bool) -> None:
        self._request.infer(share_outputs=share_outputs)


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


def _to_array(tensor: Any, dtype: str, into: Array | None = None) -> Array:
    """A copy of a Tensor's content, in ``into`` where it fits. OpenVINO hands out bfloat16 as if it were float16."""
    if dtype == "string":
        return np.array(tensor.str_data, dtype=object)
    if into is not None and into.shape == tuple(tensor.shape):
        np.copyto(into.view(tensor.data.dtype), tensor.data)
        return into
    return np.array(tensor.data).view(numpy_dtype(dtype)) if dtype == "bfloat16" else np.array(tensor.data)


def info_of(op: Any) -> dict[str, str]:
    """What a node of the runtime model says of itself."""
    return {key: _plain(value) for key, value in op.get_rt_info().items()}


def _working_nodes(graph: Any) -> Iterator[dict[str, str]]:
    """What the runtime model says of each node that computes, constants and what depends on them alone left out."""
    fixed: set[str] = set()
    for op in graph.get_ordered_ops():
        info = info_of(op)
        sources = [value.get_node().get_friendly_name() for value in op.input_values()]
        if info.get("layerType") == "Const" or (sources and fixed.issuperset(sources)):
            fixed.add(op.get_friendly_name())
        elif info.get("layerType") not in PASSIVE_LAYERS:
            yield info


def node_precision(info: dict[str, str]) -> str:
    """The precision a node computes in.

    The kernel's name ends in it. The node's own ``runtimePrecision`` is that of its first operands in memory, and says
    int8 of a float product with compressed weights; it decides only where the kernel's name tells nothing.
    """
    kernel = info.get("primitiveType", "").rpartition("_")[2].lower()
    own = info.get("runtimePrecision", "unknown")
    found = DTYPES.get(kernel) or _INTEGERS.get(kernel) or DTYPES.get(own) or _INTEGERS.get(own, own)
    if found not in ("int8", "uint8"):
        return found
    # Truth values and indices are bytes as well; arithmetic in int8 is what these layers do.
    return "int8" if info.get("layerType") in ARITHMETIC_LAYERS else "bytes"


def _property(compiled: Any, name: str) -> Any:
    """A property of a compiled model, None where its device has no such property."""
    return compiled.get_property(name) if name in compiled.get_property("SUPPORTED_PROPERTIES") else None


def _plain(value: Any) -> str:
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)
