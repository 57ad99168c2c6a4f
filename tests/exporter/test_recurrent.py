"""LSTM, GRU and RNN with dynamic batch and time, at lengths nobody traced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import toolkit
from toolkit.errors import ParityError
from toolkit.exporter.report import ExportReport

Exported = Callable[..., tuple[Path, ExportReport]]


class Recurrent(nn.Module):
    """One recurrent layer stack; ``x`` to its steps and last states."""

    def __init__(self, cls: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = cls(3, 5, **options)

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


class WithStates(Recurrent):
    """The same, continued from given states."""

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> dict[str, Tensor]:
        steps, (last, memory) = self.layers(x, (hidden, cell))
        return {"steps": steps, "last": last, "memory": memory}


STACK = {"num_layers": 2, "bidirectional": True, "batch_first": True}


@pytest.mark.parametrize(
    ("cls", "options", "nodes"),
    [
        (nn.LSTM, {"batch_first": True}, {"LSTM": 1}),
        (nn.GRU, {"batch_first": True}, {"GRU": 1}),
        (nn.LSTM, STACK, {"LSTM": 2}),
        (nn.GRU, {**STACK, "dropout": 0.3}, {"GRU": 2}),
        (nn.RNN, {**STACK, "nonlinearity": "relu"}, {"RNN": 2}),
        (nn.LSTM, {"bias": False}, {"LSTM": 1}),
    ],
    ids=["lstm", "gru", "lstm-stack", "gru-stack-dropout", "rnn-relu", "lstm-no-bias-time-first"],
)
def test_unseen_lengths_match_torch(
    cls: type[nn.RNNBase], options: dict[str, Any], nodes: dict[str, int], exported: Exported
) -> None:
    module = Recurrent(cls, **options)
    first = options.get("batch_first", False)
    path, report = exported(module, ["x:float32[batch,time,3]" if first else "x:float32[time,batch,3]"])
    assert report.strategy == "dynamo with own recurrent layers"
    assert set(report.dynamic_dims) == {"batch", "time"}
    graph = ir.load(path)
    found = [node.op_type for node in graph.graph if node.op_type in ("LSTM", "GRU", "RNN")]
    assert {name: found.count(name) for name in set(found)} == nodes
    with toolkit.load(path, "cpu") as session:
        for length in (1, 2, 7, 300):
            shape = (4, length, 3) if first else (length, 4, 3)
            x = np.random.default_rng(length).standard_normal(shape).astype(np.float32)
            got = session({"x": x})
            with torch.no_grad():
                wanted = torch.utils._pytree.tree_leaves(module(torch.from_numpy(x)))
            for array, tensor in zip(got.values(), wanted, strict=True):
                np.testing.assert_allclose(array, tensor.numpy(), atol=2e-6)


def test_states_go_in_and_out(exported: Exported) -> None:
    module = WithStates(nn.LSTM, num_layers=2, batch_first=True)
    path, report = exported(module, ["x:float32[batch,time,3]", "hidden:float32[2,batch,5]", "cell:float32[2,batch,5]"])
    assert [str(spec) for spec in report.outputs] == [
        "steps:float32[batch,time,5]",
        "last:float32[2,batch,5]",
        "memory:float32[2,batch,5]",
    ]
    x = np.random.default_rng(0).standard_normal((2, 8, 3)).astype(np.float32)
    zeros = np.zeros((2, 2, 5), np.float32)
    with toolkit.load(path, "cpu") as session:
        whole = session({"x": x, "hidden": zeros, "cell": zeros})
        half = session({"x": x[:, :3], "hidden": zeros, "cell": zeros})
        rest = session({"x": x[:, 3:], "hidden": half["last"], "cell": half["memory"]})
    np.testing.assert_allclose(rest["steps"], whole["steps"][:, 3:], atol=1e-6)


def test_fixed_lengths_are_one_node_too(exported: Exported) -> None:
    path, _ = exported(Recurrent(nn.LSTM, batch_first=True), ["x:float32[1,6,3]"])
    assert [node.op_type for node in ir.load(path).graph].count("LSTM") == 1


def test_weights_are_stored_once_and_in_order(exported: Exported) -> None:
    path, _ = exported(Recurrent(nn.LSTM, batch_first=True), ["x:float32[batch,time,3]"])
    model = ir.load(path)
    assert {"Gather", "Concat"} & {node.op_type for node in model.graph} <= {"Concat"}  # Concat makes the states' shape
    (node,) = (node for node in model.graph if node.op_type == "LSTM")
    assert [tuple(value.const_value.shape) for value in node.inputs[1:4]] == [(1, 20, 3), (1, 20, 5), (1, 40)]
    assert sum(value.const_value.size for value in model.graph.initializers.values()) < 20 * 3 + 20 * 5 + 40 + 20


def test_projected_states_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="ONNX has no LSTM with proj_size"):
        toolkit.export(Recurrent(nn.LSTM, proj_size=2), ["x:float32[time,batch,3]"], tmp_path / "out.onnx")


def test_packed_sequences_are_left_to_torchscript(exported: Exported) -> None:
    class Packed(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            lengths = torch.full((x.shape[0],), x.shape[1])
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            return nn.utils.rnn.pad_packed_sequence(self.layers(packed)[0], batch_first=True)[0]

    path, report = exported(Packed(nn.LSTM, batch_first=True), ["x:float32[batch,time,3]"])
    assert report.strategy == "torchscript"
    assert "packed sequences" in report.attempts[1].reason
    with toolkit.load(path, "cpu") as session:
        assert session({"x": np.zeros((4, 50, 3), np.float32)})["output"].shape == (4, 50, 5)


def test_the_layers_work_as_before_afterwards() -> None:
    from toolkit.exporter.strategies.recurrent import recurrent_layers_kept

    before = torch._VF.lstm
    with recurrent_layers_kept():
        assert torch._VF.lstm is not before
    assert torch._VF.lstm is before
