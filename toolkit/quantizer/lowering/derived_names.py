"""Room for the names that ONNX Runtime's quantizer derives from others without looking whether they are taken."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from toolkit.graph.edit import Editor
from toolkit.graph.walk import every_graph, values

# What is hung on a value's name. Source: onnxruntime/quantization: onnx_quantizer.py, base_quantizer.py, operators/*,
# matmul_nbits_quantizer.py.
_ENDINGS = (
    "_quantized", "_scale", "_zero_point", "_output_quantized", "_output_quantized_cast_output",
    "_Q8", "_Q4", "_scales", "_zero_points",
)  # fmt: skip


def step_aside(model: ir.Model) -> dict[str, str]:
    """Rename values whose names the quantizer may choose for its own; returns each new name with the old one."""
    edit = Editor(model)
    found = [value for graph in every_graph(model) for value in values(graph)]
    names = {value.name or "" for value in found}
    kept: dict[str, str] = {}
    for value in found:
        name = value.name or ""
        if any(name.endswith(ending) and name.removesuffix(ending) in names for ending in _ENDINGS):
            value.name = edit.fresh(f"{name}_aside")
            kept[value.name] = name
    return kept


def step_back(model: ir.Model, kept: Mapping[str, str]) -> None:
    """Give the inputs and outputs of ``model`` their names back; whatever was called so meanwhile makes room."""
    edit = Editor(model)
    by_name = {value.name: value for graph in every_graph(model) for value in values(graph)}
    for value in (*model.graph.inputs, *model.graph.outputs):
        name = kept.get(value.name or "")
        if name is None:
            continue
        if name in by_name:
            by_name[name].name = edit.fresh(f"{name}_derived")
        value.name = name
