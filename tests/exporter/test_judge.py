from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from toolkit.exporter.finish import finish
from toolkit.exporter.halves import has_halves, single_precision
from toolkit.exporter.report import ExportReport
from toolkit.exporter.strategies.base import StrategyFailed
from toolkit.tensors import parse_spec

Exported = Callable[..., tuple[Path, ExportReport]]


class Normalised(nn.Module):
    """What equal values give here is rounding, amplified a thousand times."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sin(x + 0.3)
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-14).sqrt()


def test_where_rounding_alone_decides_odd_values_are_a_note(exported: Exported) -> None:
    _, report = exported(Normalised(), ["x:float32[batch,37]"])
    assert any(note.startswith("at ") and "is rounding" in note for note in report.notes), report.notes


def test_outputs_that_vary_are_no_numbers() -> None:
    model = _model("y", ["batch", "windows"])
    outputs = (parse_spec("y:float32[batch,2]"),)
    finish(model, (parse_spec("x:float32[batch,time]"),), outputs, {})
    assert [str(dim) for dim in model.graph.outputs[0].shape or ()] == ["batch", "y_dim1"]


def _model(output: str, shape: list[str | int], inputs: tuple[str | int, ...] = ("s0", "s1")) -> ir.Model:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(inputs))
    node = ir.node("Relu", [x])
    node.outputs[0].name, node.outputs[0].type = output, x.type
    node.outputs[0].shape = ir.Shape(shape)
    node.metadata_props["pkg.torch.stack_trace"] = "/home/somebody/net.py"
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


def test_a_frozen_dim_is_a_reason() -> None:
    with pytest.raises(StrategyFailed, match="dim 'time' of input 'x' was frozen to 13"):
        finish(
            _model("y", ["s0", 13], ("s0", 13)),
            (parse_spec("x:float32[batch,time]"),),
            (parse_spec("y:float32[batch,time]"),),
            {},
        )


def test_names_dims_and_metadata_are_the_persons() -> None:
    model = _model("getitem", ["s0", "s1 + 1"])
    finish(model, (parse_spec("ids:float32[batch,time]"),), (parse_spec("x:float32[batch,n]"),), {"toolkit.task": "t"})
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["ids", "x"]
    assert dict(model.metadata_props) == {"toolkit.task": "t"}
    assert not any(node.metadata_props for node in model.graph)


def test_inputs_that_nothing_uses_stay(exported: Exported) -> None:
    class Unused(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x * 2

    path, report = exported(Unused(), ["x:float32[batch,2]", "y:float32[batch,3]"])
    assert [value.name for value in ir.load(path).graph.inputs] == ["x", "y"] == [spec.name for spec in report.inputs]


def test_outputs_that_are_inputs_or_given_twice(exported: Exported) -> None:
    class Passing(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = x + 1
            return {"same": x, "one": y, "other": y}

    path, _ = exported(Passing(), ["x:float32[batch,2]"])
    assert [value.name for value in ir.load(path).graph.outputs] == ["same", "one", "other"]


def test_half_precision_graphs_widen() -> None:
    model = _model("y", ["s0", "s1"])
    assert not has_halves(model)
    weight = ir.tensor(torch.ones(3, dtype=torch.bfloat16).float().numpy(), dtype=ir.DataType.FLOAT, name="w")
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.BFLOAT16)
    model.graph.initializers["w"] = ir.Value(name="w", const_value=weight)
    cast = ir.node("Cast", [model.graph.inputs[0]], {"to": int(ir.DataType.FLOAT16)})
    cast.outputs[0].name = "c"
    model.graph.append(cast)
    assert has_halves(model)
    wide = single_precision(model)
    assert not has_halves(wide)
    assert [node.attributes.get_int("to") for node in wide.graph if node.op_type == "Cast"] == [ir.DataType.FLOAT]
    assert has_halves(model)  # the original is left alone
