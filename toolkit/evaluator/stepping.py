"""Running a session over a dataset: padded batches, and state that goes from one step to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.data import Batch, Dataset
from toolkit.errors import UsageError
from toolkit.providers.session import Session
from toolkit.providers.streaming import check_pairs, first_states
from toolkit.tensors import Array, TensorSpec

Step = tuple[Batch, dict[str, Array]]


def steps(session: Session, data: Dataset, inputs: Sequence[TensorSpec]) -> Iterator[Step]:
    """Each batch with its outputs, cut to the rows that belong to a sample."""
    for batch, outputs in _stateful(session, data, inputs) if data.state else _plain(session, data):
        yield batch, {name: _real_rows(values, batch) for name, values in outputs.items()}


def _real_rows(values: Array, batch: Batch) -> Array:
    return values[: batch.count] if values.ndim else values


def _plain(session: Session, data: Dataset) -> Iterator[Step]:
    for batch in data:
        yield batch, session(batch.feeds)


def _stateful(session: Session, data: Dataset, inputs: Sequence[TensorSpec]) -> Iterator[Step]:
    """One sample at a time, in order. Where the sequence changes, state is what the data say, else zeros."""
    check_pairs(data.state, inputs, session.outputs, session.model)
    state: dict[str, Array] = {}
    current: object = None
    data = data.batched(1)
    if data.batch_size != 1:
        got = f"a batch size fixed to {data.batch_size}"
        raise UsageError("a model with state is stepped one sample at a time", where=session.model, got=got)
    for batch in data:
        sequence = None if batch.sequences is None else batch.sequences[0].item()
        if not state or sequence != current:
            state, current = first_states(data.state, inputs, batch.feeds, data.name), sequence
        outputs = session({**batch.feeds, **state})
        yield batch, outputs
        state = {name: outputs[output] for name, output in data.state.items()}
