"""ONNX Runtime: the engine behind the cpu, cuda and tensorrt providers, and the cpu provider itself.

ONNX Runtime takes an absent execution provider for a warning and runs on the CPU, and takes a misspelt session option for
nothing at all. Both are errors here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import toolkit.machine as machine
from toolkit.errors import InvalidTarget, MissingDependency, ProviderUnavailable
from toolkit.files import sha256
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
from toolkit.targets import Target
from toolkit.tensors import Array, Dim, Feeds, TensorSpec

# Source: onnxruntime/core/session/onnxruntime_session_options_config_keys.h, 1.24 to 1.32; those that concern inference.
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
# Attributes of SessionOptions that a target may set under their own names.
SESSION_ATTRIBUTES = (
    "enable_cpu_mem_arena", "enable_mem_pattern", "enable_mem_reuse", "execution_mode", "graph_optimization_level",
    "inter_op_num_threads", "use_deterministic_compute",
)  # fmt: skip

_DTYPES = {"float": "float32", "double": "float64"}
_UNKNOWN_DIM = re.compile(r"^(unk__\d+|\?|)$")

# Operators whose name says the precision they compute in; every other node computes in the type of its inputs.
_INTEGER_KERNELS = re.compile(
    r"^(QLinear|Q(Gemm|Attention|OrderedMatMul|MoE)|MatMulInteger|ConvInteger|DynamicQuantize)"
)
_NARROW_KERNELS = re.compile(r"^(MatMulNBits|GatherBlockQuantized|MatMulBnb4)")


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
            options.add_session_config_entry(key, _text(value))
    for key, text in (config or {}).items():
        options.add_session_config_entry(key, text)
    return options


def _attribute(ort: Any, key: str, value: object) -> object:
    enumerations = {"execution_mode": ort.ExecutionMode, "graph_optimization_level": ort.GraphOptimizationLevel}
    if key not in enumerations:
        return value
    members = enumerations[key].__members__
    if value not in members:
        raise InvalidTarget("unknown value", where=key, got=value, expected=f"one of: {', '.join(members)}")
    return members[str(value)]


def _text(value: object) -> str:
    """Session config entries are text; booleans are "1" and "0"."""
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


@final
class OnnxRuntimeEngine:
    """One InferenceSession.

    Args:
        model: the file.
        target: what to run it on.
        execution_providers: ONNX Runtime's names with their options, most wanted first. The first must be in the opened
            session, or opening fails.
    """

    def __init__(self, model: Path, target: Target, execution_providers: Sequence[tuple[str, dict[str, Any]]]) -> None:
        ort = import_onnxruntime()
        self._model, self._target, self._providers = model, target, list(execution_providers)
        config = {"session.record_ep_graph_assignment_info": "1"}
        self._session = ort.InferenceSession(str(model), session_options(target, config), providers=self._providers)
        wanted = self._providers[0][0]
        if wanted not in self._session.get_providers():
            raise ProviderUnavailable(
                f"ONNX Runtime opened the model without {wanted}",
                got=", ".join(self._session.get_providers()),
                next_step="toolkit doctor says what is missing",
            )
        # A session must not be moved to the CPU behind the caller's back when the device fails later.
        self._session.disable_fallback()
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
        ort = import_onnxruntime()
        return Execution(
            provider=self._providers[0][0],
            version=ort.__version__,
            device=self._target.device or ("CPU" if self._providers[0][0] == "CPUExecutionProvider" else "0"),
            threads=self._session.get_session_options().intra_op_num_threads,
            nodes_by_provider=assignment(self._session),
            executed_precision=executed_precision(self._profiled_nodes(feeds)),
        )

    def _profiled_nodes(self, feeds: Feeds) -> list[dict[str, Any]]:
        """Node events of one run in a second, instrumented session; profiling slows a run, so never the user's own.

        Source: assignment info still shows Q, DQ and Conv where a QLinearConv runs; the profile shows what was executed.
        """
        ort = import_onnxruntime()
        options = session_options(self._target)
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "run")
            session = ort.InferenceSession(str(self._model), options, providers=self._providers)
            session.run(self._names, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return [event["args"] for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]

    def close(self) -> None:
        del self._session


def assignment(session: Any) -> dict[str, int]:
    """Nodes per execution provider, before fusion, from a session that recorded it."""
    counts: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)


def executed_precision(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number of executed nodes per precision, from the ``args`` of a profile's node events."""
    return dict(Counter(_node_precision(node) for node in nodes))


def _node_precision(node: Mapping[str, Any]) -> str:
    operator = str(node["op_name"])
    if _INTEGER_KERNELS.match(operator):
        return "int8"
    if _NARROW_KERNELS.match(operator):
        return "int4"
    types = [_DTYPES.get(name, name) for entry in node.get("input_type_shape", []) for name in entry]
    floats = [name for name in types if name.startswith(("float", "bfloat"))]
    found: str = (floats or types or ["none"])[0]
    return found


def place(model: Path, target: Target, execution_providers: Sequence[tuple[str, dict[str, Any]]]) -> Placement:
    """Which nodes the first of ``execution_providers`` takes, asked of ONNX Runtime itself."""
    engine = OnnxRuntimeEngine(model, target, execution_providers)
    taken: Counter[str] = Counter()
    refused: dict[str, str] = {}
    for subgraph in engine.session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            if subgraph.ep_name == execution_providers[0][0]:
                taken[node.op_type] += 1
            else:
                refused[node.op_type] = f"left to {subgraph.ep_name}"
    engine.close()
    return Placement(dict(taken), refused)


def prepare(
    model: Path, target: Target, folder: Path, execution_providers: Sequence[tuple[str, dict[str, Any]]], key: str
) -> Prepared:
    """Write ONNX Runtime's optimized graph of ``model`` into ``folder``.

    Its weights stay in a file of their own beside it, so that they can be mapped instead of parsed.
    """
    ort = import_onnxruntime()
    output = folder / f"{model.stem}.prepared.onnx"
    options = session_options(
        target,
        {
            "session.optimized_model_external_initializers_file_name": f"{output.name}.data",
            "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        },
    )
    options.optimized_model_filepath = str(output)
    ort.InferenceSession(str(model), options, providers=list(execution_providers))
    return Prepared(
        output.name, key, "ONNX Runtime's optimized graph; valid for this CPU's features and this version only"
    )


def prepared_key(model: Path, target: Target) -> str:
    """Hash of everything an optimized graph depends on: ONNX Runtime bakes in layouts that fit this CPU's features."""
    facts = [
        sha256(model), import_onnxruntime().__version__, target.provider, target.device, target.inference_precision,
        sorted(target.engine_options.items()), machine.cpu_model(), machine.cpu_features(), os.uname().machine,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@final
class CpuProvider(Provider):
    """ONNX Runtime's CPU execution provider."""

    name = "cpu"
    rank = 4
    precisions = ("float64", "float32", "float16", "int8", "int4")
    extra = "cpu"
    placement_rules = "cpu.toml"

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

    def place(self, model: Path, target: Target) -> Placement:
        return place(model, target, self._CHAIN)

    def prepare(self, model: Path, target: Target, folder: Path) -> Prepared:
        return prepare(model, target, folder, self._CHAIN, self.prepared_key(model, target))

    def prepared_key(self, model: Path, target: Target) -> str:
        return prepared_key(model, target)
