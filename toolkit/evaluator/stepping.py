"""Running a session over a dataset: padded batches, and state that goes from one step to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from toolkit.data import Batch, Dataset
from toolkit.errors import InvalidData, UsageError
from toolkit.providers.base import Session
from toolkit.tensors import Array, TensorSpec, check_feeds, concrete_shape, nearest, numpy_dtype

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
    specs = {spec.name: spec for spec in inputs}
    _check_pairs(data.state, specs, session)
    state: dict[str, Array] = {}
    current: object = None
    data = data.batched(1)
    if data.batch_size != 1:
        got = f"a batch size fixed to {data.batch_size}"
        raise UsageError("a model with state is stepped one sample at a time", where=session.model, got=got)
    for batch in data:
        sequence = None if batch.sequences is None else batch.sequences[0].item()
        if not state or sequence != current:
            sizes = check_feeds([spec for spec in inputs if spec.name in batch.feeds], batch.feeds, data.name)
            state = {name: _initial(batch, specs[name], sizes) for name in data.state}
            current = sequence
        outputs = session({**batch.feeds, **state})
        yield batch, outputs
        state = {name: outputs[output] for name, output in data.state.items()}


def _check_pairs(pairs: Mapping[str, str], specs: Mapping[str, TensorSpec], session: Session) -> None:
    produced = [spec.name for spec in session.outputs]
    for name, output in pairs.items():
        for kind, wanted, known in (("input", name, specs), ("output", output, produced)):
            if wanted not in known:
                raise UsageError(
                    f"a state pair names an {kind} that the model does not have",
                    where=f"{session.model}: {name}={output}", got=wanted, expected=nearest(wanted, known),
                )  # fmt: skip


def _initial(batch: Batch, spec: TensorSpec, sizes: Mapping[str, int]) -> Array:
    """The first value of a state: what the data say, else zeros.

    A dim takes the size that it has in the other inputs. A single dim that none of them has is the batch, unless the
    state has one already: then it may as well be a length that starts at 0, and nobody but the data can tell.
    """
    if spec.name in batch.feeds:
        return batch.feeds[spec.name]
    unknown = [dim for dim in spec.dynamic_dims if dim not in sizes]
    if spec.shape is None or len(unknown) > 1 or (unknown and len(spec.dynamic_dims) > 1):
        raise InvalidData(
            "the size of this state is not known", where=str(spec), next_step="put its first value into the data"
        )
    return np.zeros(concrete_shape(spec, {**dict.fromkeys(unknown, 1), **sizes}), numpy_dtype(spec.dtype))
