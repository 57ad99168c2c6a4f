"""One model in an ONNX Runtime session: it runs, proves what ran, says which nodes it takes, and is prepared ahead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import msgspec
import numpy as np

import toolkit.machine as machine
from toolkit.errors import NotApplicable
from toolkit.providers.base import Placement, Prepared
from toolkit.providers.fingerprint import cache_key
from toolkit.providers.onnxruntime_ import Chain, import_onnxruntime, inference_session, session_options, specs
from toolkit.providers.onnxruntime_proof import (
    RECORD_ASSIGNMENT,
    assignment,
    executed_precision,
    node_events,
    placement,
    session_operators,
)
from toolkit.providers.session import Execution
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds

CPU = "CPUExecutionProvider"
# Weights are dequantized once, at opening. Keeping MatMulNBits and asking it for float32 instead is 46 times slower
# than that (512 × 512, batch 1, one thread: 1200 µs against 26 µs; in int8 15 µs).
KEEP_FLOAT = {"session.disable_quant_qdq": "1"}


def rounds_in_secret(session: Any, target: Target) -> bool:
    """Whether ONNX Runtime rounds float activations to int8 in a model whose weights alone are quantized.

    It turns DequantizeLinear and MatMul into MatMulNBits, which by default does just that: an error of 2 % of the
    output's scale in one product, where the file says float. Source: qdq_matmulnbits_accuracy_level in
    onnxruntime_session_options_config_keys.h; measured in tests/conformance/test_proof.py.
    """
    operators = session_operators(session)
    named = any(key in target.engine_options for key in (*KEEP_FLOAT, "session.qdq_matmulnbits_accuracy_level"))
    on_cpu = session.get_providers()[0] == CPU
    return on_cpu and "DequantizeLinear" in operators and "QuantizeLinear" not in operators and not named


@final
class OnnxRuntimeEngine:
    """One InferenceSession.

    Args:
        model: the file.
        target: what to run it on.
        chain: the execution providers. The first must be in the opened session and must have taken a node.
        proof_chain: the same without what forbids an instrumented run (CUDA graphs).

    Raises:
        NotApplicable: the first provider took no node, so that another one would run the whole model.
    """

    def __init__(self, model: Path, target: Target, chain: Chain, proof_chain: Chain | None = None) -> None:
        self._model, self._target = model, target
        self._wanted, self._proof_chain = chain[0][0], proof_chain or chain
        self._config: dict[str, str] = {}
        self._session = self._opened(chain, RECORD_ASSIGNMENT)
        if rounds_in_secret(self._session, target):
            self._config = KEEP_FLOAT
            self._session = self._opened(chain, RECORD_ASSIGNMENT)
        taken = assignment(self._session)
        if taken and self._wanted not in taken:
            raise NotApplicable(
                f"{self._wanted} takes no node of this model",
                where=model,
                got=f"nodes on {', '.join(taken)}",
                next_step="run it on that provider instead",
            )
        self.inputs = specs(self._session.get_inputs())
        self.outputs = specs(self._session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        # The wrapper around it checks once more what has been checked, and takes a third of a tiny model's time.
        self._run = getattr(self._session, "_sess", self._session).run

    def _opened(self, chain: Chain, config: Mapping[str, str]) -> Any:
        return inference_session(self._model, session_options(self._target, {**self._config, **config}), chain)

    @property
    def session(self) -> Any:
        """The InferenceSession itself."""
        return self._session

    def run(self, feeds: Feeds) -> dict[str, Array]:
        feeds = feeds if type(feeds) is dict else dict(feeds)
        return dict(zip(self._names, self._run(self._names, feeds, None)))  # noqa: B905 - strict costs, and cannot fail

    def run_into(self, feeds: Feeds, outputs: dict[str, Array]) -> dict[str, Array]:
        """Write into ``outputs`` where the model makes outputs of their shapes; else as :meth:`run`."""
        if any(array.dtype.hasobject for array in (*feeds.values(), *outputs.values())):
            return self.run(feeds)
        binding = self._session.io_binding()
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}  # alive until the run is over
        for name, array in arrays.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception:  # noqa: BLE001 - shapes that depend on values; what else is wrong is found and said again
            return self.run(feeds)
        return outputs

    def run_values(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Take arrays and DLPack tensors, answer OrtValues, all of them where they lie."""
        value = import_onnxruntime().OrtValue
        given = {
            name: value.ortvalue_from_numpy(np.ascontiguousarray(item))
            if isinstance(item, np.ndarray)
            else value.from_dlpack(item)
            for name, item in feeds.items()
        }
        return dict(zip(self._names, self._session.run_with_ort_values(self._names, given), strict=True))

    def prove(self, feeds: Feeds) -> Execution:
        """Assignment of the model's nodes, and the precision of the nodes that a profiled run executed."""
        return Execution(
            provider=self._wanted,
            version=import_onnxruntime().__version__,
            device=self._target.device or ("CPU" if self._wanted == CPU else "0"),
            threads=self._session.get_session_options().intra_op_num_threads,
            nodes_by_provider=assignment(self._session),
            executed_precision=executed_precision(self._profiled_nodes(feeds)),
        )

    def _profiled_nodes(self, feeds: Feeds) -> list[dict[str, Any]]:
        """Node events of one run in a second, instrumented session; profiling slows a run, so never the user's own.

        Assignment info still shows Q, DQ and Conv where a QLinearConv runs; the profile shows what was executed.
        """
        import tempfile

        options = session_options(self._target, self._config)
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "run")
            session = inference_session(self._model, options, self._proof_chain)
            session.run(self._names, dict(feeds))
            return node_events(Path(session.end_profiling()))

    def close(self) -> None:
        del self._session, self._run


def place(model: Path, target: Target, chain: Chain) -> Placement:
    """Which nodes the first of ``chain`` takes, asked of ONNX Runtime itself."""
    options = session_options(target, RECORD_ASSIGNMENT)
    # Without optimizations, so that the nodes are those of the file.
    options.graph_optimization_level = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    return placement(inference_session(model, options, chain), chain[0][0])


def prepare(model: Path, target: Target, folder: Path, chain: Chain, key: str) -> Prepared:
    """Write ONNX Runtime's optimized graph of ``model`` into ``folder``.

    Its weights stay in a file of their own beside it, so that they can be mapped instead of parsed.
    """
    output = folder / f"{model.stem}.prepared.onnx"
    config = {
        **RECORD_ASSIGNMENT,
        "session.optimized_model_external_initializers_file_name": f"{output.name}.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        # Weights of matrix products are packed for the kernels of this CPU; packed ones are mapped as well.
        "session.save_external_prepacked_constant_initializers": "1",
    }
    options = session_options(target, config)
    options.optimized_model_filepath = str(output)
    if rounds_in_secret(inference_session(model, options, chain), target):
        options = session_options(target, {**config, **KEEP_FLOAT})
        options.optimized_model_filepath = str(output)
        inference_session(model, options, chain)
    return Prepared(
        output.name, key, "ONNX Runtime's optimized graph; valid for this CPU's features and this version only"
    )


def prepared_key(model: Path, target: Target) -> str:
    """What an optimized graph is valid for: ONNX Runtime bakes in layouts that fit this CPU's features."""
    return cache_key(model, target, prepared_facts())


def prepared_facts() -> dict[str, str]:
    """What an optimized graph for the CPU depends on."""
    return {"onnxruntime": str(import_onnxruntime().__version__), **machine.cpu_facts()}


def as_it_is(target: Target) -> Target:
    """``target`` without graph optimization, for a graph that has been through it."""
    options = {**target.engine_options, "graph_optimization_level": "ORT_DISABLE_ALL"}
    return msgspec.structs.replace(target, engine_options=options)
