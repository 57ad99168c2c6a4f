"""Refuses modules that are no function of their inputs, before any exporter sees them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

from toolkit.errors import ParityError
from toolkit.exporter import state
from toolkit.exporter.adapter import Adapter
from toolkit.exporter.observe import Observation, Read, observed
from toolkit.exporter.seeding import generators_kept
from toolkit.providers.torch_ import to_array, to_tensor
from toolkit.tensors import Feeds
from toolkit.verifier.metrics import compare_arrays

# The same module on the same input: threads may add in another order, nothing else may differ.
_REPEATABLE = 2.0**-18
_REASONS = (
    ("random", "the module draws random numbers in evaluation mode", "give it fixed noise as an input, or remove it"),
    ("clocks", "the module reads a clock or an entropy source", "make what it reads an input"),
    ("writes", "the module writes into its own state", "make the state an input and an output"),
)


class Purity(msgspec.Struct, frozen=True):
    """What a module that passed still does: reads of input values in Python, writes into its inputs, and operators
    whose result's size depends on values."""

    reads: tuple[Read, ...]
    input_writes: tuple[str, ...]
    selections: int = 0

    @property
    def branches(self) -> tuple[Read, ...]:
        """Reads by code that is not trusted, which a graph can never repeat."""
        return tuple(read for read in self.reads if not read.trusted and read.kind != "item")

    @property
    def items(self) -> tuple[Read, ...]:
        """Reads of single numbers, which a graph may repeat if they only become sizes."""
        return tuple(read for read in self.reads if not read.trusted and read.kind == "item")


def require_pure(adapter: Adapter, names: Sequence[str], first: Feeds, second: Feeds) -> Purity:
    """Run the module on two inputs in turn and check that nothing but the inputs decides what it answers.

    Args:
        adapter: the module.
        names: of its inputs, in order.
        first, second: different values at the same sizes.

    Raises:
        ParityError: it draws random numbers, reads a clock, changes its own state, remembers the last input, or takes
            Python branches by what its inputs hold.
    """
    held = state.iterators(adapter.module)
    if held:
        raise ParityError(
            "the module holds an iterator, which moves on when it is asked",
            where=_where(adapter),
            got=", ".join(held[:3]),
            next_step="keep a list or tuple instead, and make the place in it an input",
        )
    with generators_kept(), torch.no_grad():
        initial, seen = _observed_run(adapter, names, first)
        before = state.fingerprint(adapter.module)
        repeated = _run(adapter, names, first)
        _require_same(initial, repeated, "twice with the same input")
        _, also = _observed_run(adapter, names, second)
        moved = state.changed(before, state.fingerprint(adapter.module))
        if moved:
            raise ParityError(
                "the module changes its own state when it runs",
                where=_where(adapter),
                got=f"another value in {', '.join(moved[:3])}",
                next_step="make the state an input and an output, or do not keep it",
            )
        _require_same(initial, _run(adapter, names, first), "after another input")
    reads = tuple(dict.fromkeys((*seen.reads, *also.reads)))
    writes = tuple(dict.fromkeys((*seen.input_writes, *also.input_writes)))
    purity = Purity(reads, writes, max(seen.selections, also.selections))
    if purity.branches:
        raise ParityError(
            "the module decides in Python by the values of its inputs, which a graph cannot",
            where=_where(adapter),
            got=", ".join(dict.fromkeys(f"{read.kind} at {read.where}" for read in purity.branches[:3])),
            next_step="write it with torch.where or torch.cond",
        )
    return purity


def _where(adapter: Adapter) -> str:
    return type(adapter.module).__name__


def _run(adapter: Adapter, names: Sequence[str], feeds: Feeds) -> list[tuple[str, Tensor]]:
    return adapter.named(*[to_tensor(feeds[name]) for name in names])


def _observed_run(adapter: Adapter, names: Sequence[str], feeds: Feeds) -> tuple[list[tuple[str, Tensor]], Observation]:
    tensors = [to_tensor(feeds[name]) for name in names]
    with observed(adapter.module, tensors, names) as result:
        outputs = adapter.named(*tensors)
    seen = result()
    for field, what, next_step in _REASONS:
        places = getattr(seen, field)
        if places:
            raise ParityError(what, where=_where(adapter), got=", ".join(places[:3]), next_step=next_step)
    # Outputs may be views of state or of inputs; what is compared later must not change under us.
    return [(name, tensor.clone()) for name, tensor in outputs], seen


def _require_same(wanted: list[tuple[str, Tensor]], got: list[tuple[str, Tensor]], when: str) -> None:
    for (name, one), (_, other) in zip(wanted, got, strict=True):
        metrics = compare_arrays(to_array(one), to_array(other), name)
        different = not metrics.comparable or metrics.mismatches or metrics.nonfinite_mismatches
        if different or metrics.max_abs > _REPEATABLE * metrics.peak:
            raise ParityError(
                f"the module answers differently when it is run {when}",
                where=f"output '{name}'",
                got=f"a difference of {metrics.max_abs:.3g}",
                next_step="remove what it remembers or draws",
            )
