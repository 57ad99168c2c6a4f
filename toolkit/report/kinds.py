"""Kinds of operators, by what bounds them: from operators' names to the few words that a chart can tell apart."""

from __future__ import annotations

from toolkit.profiler.records import OperatorRecord

KINDS = (
    "attention", "convolution", "matrix product", "recurrent", "normalization", "pooling", "elementwise",
    "data movement",
)  # fmt: skip
"""In the order in which they win where a fused node is several; what no rule knows counts as elementwise."""
# Parts of names, in lower case: ONNX's operators, ONNX Runtime's fused ones, OpenVINO's primitives.
_PARTS: dict[str, tuple[str, ...]] = {
    "attention": ("attention", "scaleddotproduct", "sdpa", "mha"),
    "convolution": ("conv",),
    "matrix product": ("matmul", "gemm", "fullyconnected", "innerproduct", "fusedgemm", "einsum"),
    "recurrent": ("lstm", "gru", "rnn"),
    "normalization": ("norm", "softmax", "mvn", "lrn"),
    "pooling": ("pool", "reduce", "resize", "interpolate", "upsample"),
    "data movement": (
        "reorder", "transpose", "reshape", "concat", "slice", "split", "gather", "scatter", "pad", "convert", "cast",
        "squeeze", "flatten", "expand", "tile", "shape", "memcpy", "identity", "depthtospace", "spacetodepth",
        "quantize", "input", "output", "result", "parameter", "constant",
    ),
}  # fmt: skip


def kind(record: OperatorRecord) -> str:
    """What ``record`` mostly is: of the nodes it stands for the first kind in :data:`KINDS`, else of what ran."""
    found = {_kind(name) for name in record.operators or (record.operator,)} | {_kind(record.operator)}
    return next(name for name in KINDS if name in found)


def _kind(operator: str) -> str:
    name = operator.lower()
    for found, parts in _PARTS.items():
        if any(part in name for part in parts) and not (found == "convolution" and name.startswith("convert")):
            return found
    return "elementwise"
