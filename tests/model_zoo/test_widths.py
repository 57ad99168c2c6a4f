"""The zoo at other widths: every family that has one builds, answers, and grows."""

from __future__ import annotations

import pytest

from model_zoo.registry import entry
from model_zoo.widths import with_width
from toolkit.errors import UsageError
from toolkit.tensors import example_inputs

torch = pytest.importorskip("torch", reason="torch is not installed")


def parameters(name: str, width: int) -> int:
    return sum(item.numel() for item in with_width(entry(name), width).build().parameters())


@pytest.mark.parametrize("name", ["fcnn_digits", "cnn_digits", "rnn_digits", "gru_digits", "transformer_digits"])
def test_small_families_answer_at_any_width_and_grow_with_it(name: str) -> None:
    wide = with_width(entry(name), 96)
    feeds = example_inputs(wide.inputs, {dim: 2 for spec in wide.inputs for dim in spec.dynamic_dims})
    with torch.no_grad():
        answer = wide.build()(*[torch.from_numpy(array) for array in feeds.values()])["logits"]
    assert answer.shape == (2, 10) and bool(torch.isfinite(answer).all())
    assert parameters(name, 16) < parameters(name, 96)


@pytest.mark.parametrize("name", ["vit_s16", "bert_base", "distilbert", "gpt2_small", "llama_160m"])
def test_real_architectures_take_a_width(name: str) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    assert parameters(name, 48) < 0.2 * entry(name).parameters


def test_the_width_an_entry_has_leaves_it_as_it_is() -> None:
    for name, width in (("fcnn_digits", 128), ("cnn_digits", 32), ("rnn_digits", 64), ("transformer_digits", 64)):
        assert with_width(entry(name), width).arguments == entry(name).arguments


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("resnet50", 64, "zoo:resnet50: this architecture has no width to vary"),
        ("transformer_digits", 30, "width=30: the heads must divide the width; expected a multiple of 4"),
        ("fcnn_digits", 0, "zoo:fcnn_digits: a width is 1 or more; got 0"),
    ],
)
def test_what_cannot_be_is_one_line(name: str, width: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_width(entry(name), width)
    assert str(caught.value) == message
