"""ONNX Runtime, the engine behind the providers cpu, cuda and tensorrt: its options, and sessions that do not stray.

ONNX Runtime takes an absent execution provider for a warning and runs on the CPU, and takes a misspelt session option
for nothing at all. Both are errors here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import toolkit.machine as machine
from toolkit.errors import InvalidModel, ProviderUnavailable, import_failed
from toolkit.targets import Target
from toolkit.tensors import Dim, TensorSpec

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
# Those of them that reach beyond the session: to other files, or, for subnormal numbers, to whatever the thread that
# opens it computes from then on.
OUTWARD_KEYS = (
    "ep.context_enable", "ep.context_file_path", "session.load_model_format", "session.set_denormal_as_zero",
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
        ProviderUnavailable: it is, and cannot be imported.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise import_failed(exc, "onnxruntime", "cpu", "running ONNX files on the CPU") from exc
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
    from toolkit.onnxfile.reading import opset

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
