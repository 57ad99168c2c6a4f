"""ONNX Runtime sessions whose tensors live on the device: bound once, written in place, replayed as CUDA graphs.

A CUDA graph needs fixed shapes and fixed addresses, hence one set of tensors per set of shapes; ONNX Runtime itself
makes the runs that must come before the capture. Source: onnxruntime.ai/docs/performance/device-tensor.html and
onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html, "Using CUDA Graphs".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, final

import msgspec
import numpy as np

from toolkit.errors import EngineError
from toolkit.providers.cuda_events import Stream
from toolkit.providers.device import Device, DeviceTimes
from toolkit.providers.onnxruntime_ import import_onnxruntime
from toolkit.providers.onnxruntime_engine import OnnxRuntimeEngine
from toolkit.providers.session import Execution
from toolkit.tensors import Array, Feeds

# Where ONNX Runtime wants a tensor that is not for the device.
_HOST_MEMORY = ("cpu", "cudapinned")
# ONNX Runtime's run option that names the graph to replay; -1 runs without one.
_GRAPH_ID = "gpu_graph_id"


class Tensors:
    """Makes and binds a session's tensors where the session wants them.

    Args:
        session: the InferenceSession.
        device: ONNX Runtime's name of the device's kind: "cuda", or "cpu" in tests.
        index: which one of that kind.
    """

    def __init__(self, session: Any, device: str, index: int) -> None:
        self._value = import_onnxruntime().OrtValue
        nodes = (*session.get_inputs(), *session.get_outputs())
        memories = (*session.get_input_memory_infos(), *session.get_output_memory_infos())
        self._places = {
            node.name: ("cpu", 0) if memory.name.lower() in _HOST_MEMORY else (device, index)
            for node, memory in zip(nodes, memories, strict=True)
        }

    def like(self, name: str, array: Array) -> Any:
        """An OrtValue with room for ``array``, where the session wants the tensor ``name``."""
        return self._value.ortvalue_from_shape_and_type(array.shape, array.dtype, *self._places[name])

    def value(self, name: str, item: Any) -> Any:
        """``item`` as an OrtValue: a copy of an array where the session wants it, a DLPack tensor as it is."""
        if not isinstance(item, np.ndarray):
            return self._value.from_dlpack(item)
        found = self.like(name, item)
        write(found, item)
        return found

    def bind_output(self, binding: Any, name: str) -> None:
        """Let ``binding`` make the output ``name`` anew in each run, in whatever shape it takes."""
        binding.bind_output(name, *self._places[name])


def write(value: Any, array: Array) -> None:
    """Copy ``array`` into an OrtValue of the same shape and type."""
    value.update_inplace(np.ascontiguousarray(array))


@final
class BoundEngine:
    """An engine whose inputs are copied to the device in place and whose outputs come back in one copy."""

    parallel = 1

    def __init__(self, engine: OnnxRuntimeEngine, device: str, index: int) -> None:
        self.device: Device | None = None
        self._engine = engine
        self._session = engine.session
        self._tensors = Tensors(self._session, device, index)
        self._binding = self._session.io_binding()
        self._values: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, feeds: Feeds, options: Any = None) -> dict[str, Array]:
        """Run with ``options`` (RunOptions), one caller at a time."""
        with self._lock:
            for name, array in feeds.items():
                self._feed(name, array)
            self._binding.clear_binding_outputs()
            for spec in self.outputs:
                self._tensors.bind_output(self._binding, spec.name)
            self._session.run_with_iobinding(self._binding, options)
            return _results(self._binding, [spec.name for spec in self.outputs])

    def run_values(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors of the device are read where they lie; outputs are OrtValues that stay there."""
        binding = self._session.io_binding()
        for name, item in feeds.items():
            binding.bind_ortvalue_input(name, self._tensors.value(name, item))
        names = [spec.name for spec in self.outputs]
        for name in names:
            self._tensors.bind_output(binding, name)
        with self._lock:
            self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return dict(zip(names, binding.get_outputs(), strict=True))

    def timed(self, feeds: Feeds, stream: Stream) -> DeviceTimes:
        """One call whose computation is timed on ``stream``, which the session runs on.

        Copies wait until they are done, so the host's clock tells what they took.
        """
        with self._lock:
            start_ns = time.perf_counter_ns()
            for name, array in feeds.items():
                self._feed(name, array)
            fed_ns = time.perf_counter_ns()
            self._binding.clear_binding_outputs()
            for spec in self.outputs:
                self._tensors.bind_output(self._binding, spec.name)
            begin = stream.mark()
            self._session.run_with_iobinding(self._binding)
            end = stream.mark()
            compute_ns = stream.elapsed_ns(begin, end)
            copying_ns = time.perf_counter_ns()
            _results(self._binding, [spec.name for spec in self.outputs])
            stop_ns = time.perf_counter_ns()
            return DeviceTimes(compute_ns, fed_ns - start_ns + stop_ns - copying_ns)

    def _feed(self, name: str, array: Array) -> None:
        value = self._values.get(name)
        if value is None or tuple(value.shape()) != array.shape:
            value = self._values[name] = self._tensors.like(name, array)
            self._binding.bind_ortvalue_input(name, value)
        write(value, array)

    def prove(self, feeds: Feeds) -> Execution:
        return self._engine.prove(feeds)

    def close(self) -> None:
        self._values.clear()
        del self._binding, self._session
        self._engine.close()


class Captured(msgspec.Struct, frozen=True):
    """The fixed tensors of one CUDA graph, and the run options that name it."""

    inputs: Mapping[str, Any]
    binding: Any
    options: Any


@final
class GraphEngine:
    """An engine that captures a CUDA graph for each set of input shapes and replays it.

    Args:
        engine: the opened session, with CUDA graphs enabled.
        device: ONNX Runtime's name of the device's kind.
        index: which one of that kind.
        limit: how many graphs it may hold; each keeps its own tensors on the device.
    """

    parallel = 1

    def __init__(self, engine: OnnxRuntimeEngine, device: str, index: int, limit: int) -> None:
        self.device: Device | None = None
        self._plain = BoundEngine(engine, device, index)
        self._session = engine.session
        self._tensors = Tensors(self._session, device, index)
        self._limit = limit
        self._graphs: dict[tuple[tuple[int, ...], ...], Captured] = {}
        self._lock = threading.Lock()
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, feeds: Feeds) -> dict[str, Array]:
        shapes = tuple(feeds[spec.name].shape for spec in self.inputs)
        with self._lock:
            graph = self._graphs.get(shapes) or self._capture(shapes, feeds)
            for name, value in graph.inputs.items():
                write(value, feeds[name])
            self._session.run_with_iobinding(graph.binding, graph.options)
            return _results(graph.binding, [spec.name for spec in self.outputs])

    def _capture(self, shapes: tuple[tuple[int, ...], ...], feeds: Feeds) -> Captured:
        """Fixed tensors for ``shapes``; a run without a graph tells the outputs' shapes.

        Raises:
            EngineError: as many graphs as allowed are held already.
        """
        if len(self._graphs) >= self._limit:
            raise EngineError(
                "no CUDA graph is left for these input shapes",
                got=", ".join(str(list(shape)) for shape in shapes),
                expected=f"one of the {self._limit} sets of shapes seen before",
                next_step="feed fixed shapes, or turn the CUDA graph option of the target off",
            )
        outputs = self._plain.run(feeds, self._options(-1))
        binding = self._session.io_binding()
        inputs = {spec.name: self._tensors.like(spec.name, feeds[spec.name]) for spec in self.inputs}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, self._tensors.like(name, array))
        graph = self._graphs[shapes] = Captured(inputs, binding, self._options(len(self._graphs) + 1))
        return graph

    def _options(self, graph: int) -> Any:
        options = import_onnxruntime().RunOptions()
        options.add_run_config_entry(_GRAPH_ID, str(graph))
        return options

    def prove(self, feeds: Feeds) -> Execution:
        found = self._plain.prove(feeds)
        note = f"CUDA graphs on, {len(self._graphs)} captured; proved by a run without them"
        return msgspec.structs.replace(found, notes=(*found.notes, note))

    def close(self) -> None:
        self._graphs.clear()
        del self._session
        self._plain.close()


def _results(binding: Any, names: list[str]) -> dict[str, Array]:
    return dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))
