"""Modules that are no function of their inputs: each is refused before any exporter sees it, or let through."""

from __future__ import annotations

import datetime
import itertools
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.errors import ParityError
from toolkit.exporter.adapter import Adapter
from toolkit.exporter.purity import Purity, require_pure
from toolkit.tensors import example_inputs, parse_spec

SPECS = (parse_spec("x:float32[batch,4]"),)
CALLS = [0]
TICKS = itertools.count()


class Module(nn.Module):
    """Something with weights, buffers, attributes and a normalisation; ``body`` is its forward."""

    shared = 0

    def __init__(self, body: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("memory", torch.zeros(4))
        self.calls, self.first, self.last = 0, True, None
        self.cache: dict[int, Tensor] = {}
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def check(body: Callable[[Any, Tensor], Tensor]) -> Purity:
    feeds = [example_inputs(SPECS, {"batch": 3}, seed=seed) for seed in (0, 1)]
    return require_pure(Adapter(Module(body).eval(), SPECS), ["x"], *feeds)


def rare_branch(m: Any, x: Tensor) -> Tensor:
    if x.max() > 1e6:
        return x * 2
    return m.linear(x)


def swallowed_branch(m: Any, x: Tensor) -> Tensor:
    try:
        if x.max() > 1e6:
            return x * 2
    except Exception:  # noqa: BLE001  # what a person's code may well do
        warnings.warn("not while tracing", stacklevel=1)
    return m.linear(x)


def branch_skipped_under_export(m: Any, x: Tensor) -> Tensor:
    if not torch.compiler.is_exporting() and not torch.jit.is_tracing() and x.abs().max() > 1e6:
        return x
    return m.linear(x)


def branch_on_numpy(m: Any, x: Tensor) -> Tensor:
    return x if x.detach().numpy().sum() > 1e9 else m.linear(x)


def branch_on_list(m: Any, x: Tensor) -> Tensor:
    return x if x.tolist()[0][0] > 1e9 else m.linear(x)


def branch_on_equal(m: Any, x: Tensor) -> Tensor:
    return x if torch.equal(x, m.memory.expand_as(x)) else m.linear(x)


def branch_on_allclose(m: Any, x: Tensor) -> Tensor:
    return x if torch.allclose(x, m.memory) else m.linear(x)


def branch_on_contains(m: Any, x: Tensor) -> Tensor:
    return x if 123456.0 in x else m.linear(x)


def dropout(m: Any, x: Tensor) -> Tensor:
    return F.dropout(m.linear(x), 0.1, training=True)


def noise(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) + 1e-9 * torch.randn_like(x)


def seeded_noise(m: Any, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return m.linear(x) + torch.rand(4)


def private_noise(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) + torch.rand(4, generator=torch.Generator().manual_seed(0))


def numpy_noise(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) + float(np.random.rand())


def fresh_numpy_noise(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) + float(np.random.default_rng().random())


def python_noise(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) * random.random()


def clock(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) * (1 if time.time() < 1e12 else 2)


def calendar(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) * (1 if datetime.datetime.now().year < 3000 else 2)


def buffer_in_place(m: Any, x: Tensor) -> Tensor:
    m.memory.add_(1)
    return m.linear(x)


def buffer_through_a_view(m: Any, x: Tensor) -> Tensor:
    m.memory[1:3] = x[0, 1:3]
    return m.linear(x)


def buffer_replaced(m: Any, x: Tensor) -> Tensor:
    m.memory = 0.9 * m.memory + 0.1 * x.mean(0)
    return m.linear(x)


def buffer_through_numpy(m: Any, x: Tensor) -> Tensor:
    m.memory.numpy()[:] += 1
    return m.linear(x)


def running_statistics(m: Any, x: Tensor) -> Tensor:
    m.norm.train()
    return m.norm(x)


def attribute(m: Any, x: Tensor) -> Tensor:
    m.calls += 1
    return m.linear(x)


def nested_attribute(m: Any, x: Tensor) -> Tensor:
    m.cache[len(m.cache)] = x.sum()
    return m.linear(x)


def class_attribute(m: Any, x: Tensor) -> Tensor:
    Module.shared += 1
    return m.linear(x)


def remembers(m: Any, x: Tensor) -> Tensor:
    y = m.linear(x) if m.last is None else m.linear(x) + m.last
    m.last = x
    return y


def first_call_differs(m: Any, x: Tensor) -> Tensor:
    if m.first:
        m.first = False
        return x
    return m.linear(x)


class Global(Module):
    def forward(self, x: Tensor) -> Tensor:
        CALLS[0] += 1
        return self.linear(x)


class Counter(Module):
    def forward(self, x: Tensor) -> Tensor:
        next(TICKS)
        return self.linear(x)


REFUSED = {
    "decides in Python": (
        rare_branch, swallowed_branch, branch_skipped_under_export, branch_on_numpy, branch_on_list, branch_on_equal,
        branch_on_allclose, branch_on_contains,
    ),
    "draws random numbers": (dropout, noise, seeded_noise, private_noise, numpy_noise, python_noise),
    "answers differently": (remembers, first_call_differs),
    "reads a clock or an entropy source": (clock, calendar, fresh_numpy_noise),
    "writes into its own state": (buffer_in_place, buffer_through_a_view, running_statistics),
    "changes its own state": (
        buffer_replaced, buffer_through_numpy, attribute, nested_attribute, class_attribute,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "body"),
    [(words, body) for words, bodies in REFUSED.items() for body in bodies],
    ids=[body.__name__ for bodies in REFUSED.values() for body in bodies],
)
def test_what_is_no_function_of_its_inputs_is_refused(words: str, body: Callable[[Any, Tensor], Tensor]) -> None:
    with pytest.raises(ParityError, match=words) as caught:
        check(body)
    assert "\n" not in str(caught.value)


def counted(x: Tensor) -> Tensor:
    counted.calls += 1  # type: ignore[attr-defined]
    return x


counted.calls = 0  # type: ignore[attr-defined]


class OnAFunction(Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(counted(x))


class InADefault(Module):
    def forward(self, x: Tensor, seen: list[int] = []) -> Tensor:  # noqa: B006
        seen.append(1)
        return self.linear(x)


@pytest.mark.parametrize("cls", [Global, Counter, OnAFunction, InADefault])
def test_state_kept_in_globals_is_refused(cls: type[Module]) -> None:
    feeds = [example_inputs(SPECS, {"batch": 3}, seed=seed) for seed in (0, 1)]
    with pytest.raises(ParityError, match="changes its own state"):
        require_pure(Adapter(cls(attribute).eval(), SPECS), ["x"], *feeds)


def test_the_message_names_the_line() -> None:
    line = rare_branch.__code__.co_firstlineno + 1
    with pytest.raises(ParityError, match=rf"got branch at test_purity\.py:{line}; write it with torch\.where"):
        check(rare_branch)
    line = dropout.__code__.co_firstlineno + 1
    with pytest.raises(ParityError, match=rf"bernoulli_ at test_purity\.py:{line}"):
        check(dropout)


def cached_by_size(m: Any, x: Tensor) -> Tensor:
    if x.shape[0] not in m.cache:
        m.cache[x.shape[0]] = torch.arange(x.shape[0])[:, None] * 1.0
    return m.linear(x) + m.cache[x.shape[0]]


def uses_sizes(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) * int(x.shape[0]) if x.shape[1] > 2 else x


def reads_its_own_constants(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) if m.memory.sum() == 0 and m.memory.tolist() else x


def decides_in_the_graph(m: Any, x: Tensor) -> Tensor:
    return torch.where(x > 1e6, x * 2, m.linear(x))


def attention(m: Any, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]


def dropout_in_evaluation(m: Any, x: Tensor) -> Tensor:
    return F.dropout(m.linear(x), 0.5, training=m.training)


@pytest.mark.parametrize(
    "body",
    [cached_by_size, uses_sizes, reads_its_own_constants, decides_in_the_graph, attention, dropout_in_evaluation],
)
def test_functions_of_their_inputs_pass(body: Callable[[Any, Tensor], Tensor]) -> None:
    assert check(body) == Purity((), ())


def test_reading_a_single_number_is_left_to_the_strategies() -> None:
    purity = check(lambda m, x: m.linear(x) * x.max().item())
    assert [read.kind for read in purity.items] == ["item"] and not purity.branches


def test_writing_into_an_input_is_noted() -> None:
    assert check(lambda m, x: m.linear(x.add_(1))).input_writes == ("x",)


def test_generators_are_left_as_they_were() -> None:
    adapter, feeds = Adapter(Module(noise).eval(), SPECS), example_inputs(SPECS, {"batch": 3})
    before = torch.get_rng_state()
    with pytest.raises(ParityError):
        require_pure(adapter, ["x"], feeds, feeds)
    assert torch.equal(before, torch.get_rng_state())
