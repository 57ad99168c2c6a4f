from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from toolkit.errors import UsageError
from toolkit.exporter.adapter import Adapter, named_outputs, nested
from toolkit.tensors import TensorSpec, parse_spec

ONE = torch.ones(2)


@dataclass
class Answer:
    scores: Tensor
    boxes: Tensor | None = None


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (ONE, ["output"]),
        ({"a": ONE, "b": {"c": ONE}}, ["a", "b.c"]),
        ((ONE, ONE), ["output_0", "output_1"]),
        ([ONE, (ONE, ONE)], ["output_0", "output_1.0", "output_1.1"]),
        (Answer(ONE), ["scores"]),
        (Pair(ONE, ONE), ["left", "right"]),
        ({"logits": ONE, "loss": None}, ["logits"]),
    ],
)
def test_outputs_are_named_after_keys_fields_or_places(result: object, names: list[str]) -> None:
    assert [name for name, _ in named_outputs(result)] == names


def test_an_output_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(UsageError, match=r"output n: the module returns something else than tensors; got int"):
        named_outputs({"n": 3})


def test_dotted_names_nest() -> None:
    assert nested([("x", 1), ("state.0", 2), ("state.1", 3), ("extra.ids", 4)]) == {
        "x": 1,
        "state": (2, 3),
        "extra": {"ids": 4},
    }


class Takes(nn.Module):
    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], scale: Tensor | None = None) -> Tensor:
        return x + state[0] - state[1] if scale is None else x * scale


def specs(*names: str) -> list[TensorSpec]:
    return [parse_spec(f"{name}:float32[2]") for name in names]


def test_inputs_go_to_arguments_of_their_name_and_the_rest_keep_their_defaults() -> None:
    adapter = Adapter(Takes(), specs("state.0", "x", "state.1"))
    (result,) = adapter(torch.tensor([1.0, 1.0]), torch.tensor([5.0, 5.0]), torch.tensor([2.0, 2.0]))
    assert result.tolist() == [4.0, 4.0]


def test_names_that_no_argument_has_are_passed_by_place() -> None:
    class Scale(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return first * second

    assert Adapter(Scale(), specs("a", "b"))(ONE, 3 * ONE)[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("x", "staet.0"), r"Takes\.forward: no such argument; got staet; expected 'state'"),
        (("x",), r"an argument has no input; got x; expected also state"),
    ],
)
def test_arguments_that_do_not_fit_are_named(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Adapter(Takes(), specs(*names))


def test_output_names_can_be_given() -> None:
    adapter = Adapter(nn.Linear(2, 2), specs("input"), ("y",))
    assert [name for name, _ in adapter.named(ONE)] == ["y"]
    with pytest.raises(UsageError, match="wrong number of output names"):
        Adapter(nn.Linear(2, 2), specs("input"), ("y", "z")).named(ONE)
