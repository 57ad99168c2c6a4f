"""ONNX Runtime: the engine behind the cpu, cuda and tensorrt providers, and the cpu provider itself.

ONNX Runtime takes an absent execution provider for a warning and runs on the CPU, and takes a misspelt session option
for nothing at all. Both are errors here.
"""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import msgspec

import toolkit.machine as machine
from toolkit.errors import InvalidModel, MissingDependency, NotApplicable, ProviderUnavailable
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
from toolkit.providers.onnx_wire import opset
from toolkit.providers.onnxruntime_proof import (
    RECORD_ASSIGNMENT,
    assignment,
    executed_precision,
    node_events,
    placement,
)
from toolkit.targets import Target
from toolkit.tensors import Array, Dim, Feeds, TensorSpec

# Those that concern inference; source: core/session/onnxruntime_session_options_config_keys.h, 1.24 to 1.32.
SESSION_KEYS = (
    "ep.context_embed_mode", "ep.context_enable", "ep.context_file_path", "memory.enable_memory_arena_shrinkage",
    "mlas.enable_gemm_fastmath_arm64_bfloat16", "mlas.qnbit.force_fp32", "mlas.use_lut_gemm",
    "optimization.disable_specified_optimizers", "optimization.enable_cast_chain_elimination",
    "optimization.enable_gelu_approximation", "session.disable_cpu_ep_fallback", "session.disable_double_qdq_remover",
    "session.disable_prepacking", "session.disable_quant_qdq", "session.dynamic_block_base",
    "session.enable_dq_matmulnbits_fusion", "session.enable_quant_qdq_cleanup", "session.force_spinning_stop",
    "session.inter_op.allow_spinning", "session.intra_op.allow_spinning", "session.intra_op.spin_duration_us",
    "session.intra_op_thread_affinities", "session.load_model_format", "session.qdq_matmulnbits_accuracy_level",
    "session.qdqisint8allowed", "session.set_denormal_as_zero", "session.use_device_allocator_for_initializers",
    "session.x64quantprecision",
)  # fmt: skip
# Attributes of SessionOptions that a target may set under their own names, and the values they take.
SESSION_VALUES: Mapping[str, tuple[str, ...] | type] = {
    "enable_cpu_mem_arena": bool,
    "enable_mem_pattern": bool,
    "enable_mem_reuse": bool,
    "execution_mode": ("ORT_SEQUENTIAL", "ORT_PARALLEL"),
    "graph_optimization_level": (
        "ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_LAYOUT", "ORT_ENABLE_ALL",
    ),
    "inter_op_num_threads": int,
    "use_deterministic_compute": bool,
}  # fmt: skip
SESSION_ATTRIBUTES = tuple(SESSION_VALUES)

_DTYPES = {"float": "float32", "double": "float64"}
OLDEST_OPSET = 7
_UNKNOWN_DIM = re.compile(r"^(unk__\d+|\?|)$")


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        MissingDependency: neither onnxruntime nor onnxruntime-gpu is installed.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingDependency.of("onnxruntime", "cpu", "running ONNX files on the CPU") from exc
    if not hasattr(onnxruntime, "InferenceSession"):
        # What two wheels that overwrote each other, then one of them uninstalled, leave behind.
        raise ProviderUnavailable(
            "the installed onnxruntime is broken (no InferenceSession)",
            next_step="pip uninstall -y onnxruntime onnxruntime-gpu, then install one of the two",
        )
    return onnxruntime


def session_options(target: Target, config: Mapping[str, str] | None = None) -> Any:
    """SessionOptions for ``target``: its threads and those of its options that are not the execution provider's own."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal only: errors arrive as exceptions, and twice is once too many
    options.intra_op_num_threads = target.threads or machine.usable_cores()
    if target.streams > 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = target.streams
    for key, value in target.engine_options.items():
        if key in SESSION_ATTRIBUTES:
            setattr(options, key, _attribute(ort, key, value))
        elif key in SESSION_KEYS:
            options.add_session_config_entry(key, option_text(value))
    for key, text in (config or {}).items():
        options.add_session_config_entry(key, text)
    return options


def _attribute(ort: Any, key: str, value: object) -> object:
    enumerations = {"execution_mode": ort.ExecutionMode, "graph_optimization_level": ort.GraphOptimizationLevel}
    return getattr(enumerations[key], str(value)) if key in enumerations else value


def option_text(value: object) -> str:
    """An option as the engine takes it: text, with booleans as "1" and "0"."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """TensorSpecs of a session's inputs or outputs; dims without a name get one made of the tensor's name and axis."""
    return tuple(TensorSpec(node.name, _dtype(node.type), _shape(node.name, node.shape)) for node in nodes)


def _dtype(text: str) -> str:
    inner = text[len("tensor(") : -1] if text.startswith("tensor(") else text
    return _DTYPES.get(inner, inner)


def _shape(name: str, dims: Sequence[Dim | None] | None) -> tuple[Dim, ...] | None:
    if dims is None:
        return None
    return tuple(
        f"{name}_dim{axis}" if dim is None or (isinstance(dim, str) and _UNKNOWN_DIM.match(dim)) else dim
        for axis, dim in enumerate(dims)
    )


# ONNX Runtime's names of execution providers with their options, most wanted first.
Chain = Sequence[tuple[str, Mapping[str, Any]]]


def inference_session(model: Path | bytes, options: Any, chain: Chain) -> Any:
    """An InferenceSession on the first of ``chain``, which fails where ONNX Runtime would move on to the CPU.

    Raises:
        ProviderUnavailable: the session opened without the provider that was wanted.
    """
    ort = import_onnxruntime()
    providers = [(name, dict(settings)) for name, settings in chain]
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except Exception as exc:
        if isinstance(model, Path) and (age_problem := _age_problem(model)):
            raise age_problem from exc
        raise
    wanted = chain[0][0]
    if wanted not in session.get_providers():
        raise ProviderUnavailable(
            f"ONNX Runtime opened the model without {wanted}",
            got=", ".join(session.get_providers()),
            next_step="toolkit doctor says what is missing",
        )
    # A session must not be moved to the CPU behind the caller's back when the device fails later.
    session.disable_fallback()
    return session


def _age_problem(model: Path) -> InvalidModel | None:
    """What to say of a model that did not open and is older than what ONNX Runtime supports.

    ONNX Runtime itself speaks of a node without an implementation. Source:
    onnxruntime.ai/docs/reference/compatibility.html.
    """
    found = opset(model)
    if found is None or found >= OLDEST_OPSET:
        return None
    return InvalidModel(
        "the file's opset is older than ONNX Runtime supports",
        where=model,
        got=found,
        expected=f"{OLDEST_OPSET} or newer",
        next_step=f"toolkit optimize {model.name} -o NEW.onnx --opset 17",
    )


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
        self._session = inference_session(model, session_options(target, RECORD_ASSIGNMENT), chain)
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

    @property
    def session(self) -> Any:
        """The InferenceSession itself."""
        return self._session

    def run(self, feeds: Feeds) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))

    def prove(self, feeds: Feeds) -> Execution:
        """Assignment of the model's nodes, and the precision of the nodes that a profiled run executed."""
        return Execution(
            provider=self._wanted,
            version=import_onnxruntime().__version__,
            device=self._target.device or ("CPU" if self._wanted == "CPUExecutionProvider" else "0"),
            threads=self._session.get_session_options().intra_op_num_threads,
            nodes_by_provider=assignment(self._session),
            executed_precision=executed_precision(self._profiled_nodes(feeds)),
        )

    def _profiled_nodes(self, feeds: Feeds) -> list[dict[str, Any]]:
        """Node events of one run in a second, instrumented session; profiling slows a run, so never the user's own.

        Assignment info still shows Q, DQ and Conv where a QLinearConv runs; the profile shows what was executed.
        """
        options = session_options(self._target)
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "run")
            session = inference_session(self._model, options, self._proof_chain)
            session.run(self._names, dict(feeds))
            return node_events(Path(session.end_profiling()))

    def close(self) -> None:
        del self._session


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
        "session.optimized_model_external_initializers_file_name": f"{output.name}.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    }
    options = session_options(target, config)
    options.optimized_model_filepath = str(output)
    inference_session(model, options, chain)
    return Prepared(
        output.name, key, "ONNX Runtime's optimized graph; valid for this CPU's features and this version only"
    )


def prepared_key(model: Path, target: Target) -> str:
    """What an optimized graph is valid for: ONNX Runtime bakes in layouts that fit this CPU's features."""
    facts = (import_onnxruntime().__version__, platform.machine(), machine.cpu_model(), machine.cpu_features())
    return cache_key(model, target, *facts)


def as_it_is(target: Target) -> Target:
    """``target`` without graph optimization, for a graph that has been through it."""
    options = {**target.engine_options, "graph_optimization_level": "ORT_DISABLE_ALL"}
    return msgspec.structs.replace(target, engine_options=options)


@final
class CpuProvider(Provider):
    """ONNX Runtime's CPU execution provider."""

    name = "cpu"
    rank = 4
    precisions = ("float64", "float32", "float16", "int8", "int4")
    extra = "cpu"
    placement_rules = "cpu.toml"
    option_values = SESSION_VALUES

    _CHAIN: ClassVar[tuple[tuple[str, dict[str, Any]], ...]] = (("CPUExecutionProvider", {}),)

    def probe(self, device: str = "") -> Availability:
        if device not in ("", "CPU", "cpu", "0"):
            return Unavailable(f"the CPU has no device {device!r}", "leave the device out: cpu")
        try:
            ort = import_onnxruntime()
        except (MissingDependency, ProviderUnavailable) as exc:
            return Unavailable(exc.what, exc.next_step or "")
        except OSError as exc:
            return Unavailable(
                f"onnxruntime does not load: {first_line(exc)}", "pip install --force-reinstall onnxruntime"
            )
        return Available(ort.__version__, ("CPU",))

    def known_options(self) -> tuple[str, ...]:
        return SESSION_KEYS + SESSION_ATTRIBUTES

    def open_engine(self, model: Path, target: Target) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(model, target, self._CHAIN)

    def open_prepared(self, prepared: Path, target: Target) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(prepared, as_it_is(target), self._CHAIN)

    def place(self, model: Path, target: Target) -> Placement:
        return place(model, target, self._CHAIN)

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared:
        return prepare(model, target, folder, self._CHAIN, self.prepared_key(model, target))

    def prepared_key(self, model: Path, target: Target) -> str:
        return prepared_key(model, target)
