"""State that goes from one step of a model to the next: outputs that become inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np

from toolkit.errors import InvalidInput, UsageError
from toolkit.tensors import Array, Feeds, TensorSpec, check_feeds, concrete_shape, nearest, numpy_dtype

if TYPE_CHECKING:
    from toolkit.providers.session import Session

Pairs = Mapping[str, str]
"""Model input to the output that feeds it at the next step."""


def check_pairs(pairs: Pairs, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str) -> None:
    """Check that state pairs name tensors of the model.

    Raises:
        UsageError: naming the first that does not.
    """
    for name, output in pairs.items():
        for kind, wanted, specs in (("input", name, inputs), ("output", output, outputs)):
            known = [spec.name for spec in specs]
            if wanted not in known:
                raise UsageError(
                    f"a state pair names an {kind} that the model does not have",
                    where=f"{where}: {name}={output}", got=wanted, expected=nearest(wanted, known),
                )  # fmt: skip


def first_states(pairs: Pairs, inputs: Sequence[TensorSpec], feeds: Feeds, where: str) -> dict[str, Array]:
    """What state starts from: what ``feeds`` hold for it, else zeros.

    A dim takes the size that it has in the inputs fed. A single dim that none of them has is the batch, unless the
    state has one already: then it may as well be a length that starts at 0, and nobody but the caller can tell.

    Raises:
        InvalidInput: what is fed does not fit, or the size of a state is not known.
    """
    fed = [spec for spec in inputs if spec.name in feeds]
    sizes = check_feeds(fed, {spec.name: feeds[spec.name] for spec in fed}, where)
    states = [spec for spec in inputs if spec.name in pairs]
    return {spec.name: feeds[spec.name] if spec.name in feeds else _zeros(spec, sizes) for spec in states}


def _zeros(spec: TensorSpec, sizes: Mapping[str, int]) -> Array:
    unknown = [dim for dim in spec.dynamic_dims if dim not in sizes]
    if spec.shape is None or len(unknown) > 1 or (unknown and len(spec.dynamic_dims) > 1):
        raise InvalidInput(
            "the size of this state is not known", where=str(spec), next_step="put its first value into the data"
        )
    return np.zeros(concrete_shape(spec, {**dict.fromkeys(unknown, 1), **sizes}), numpy_dtype(spec.dtype))


@final
class Stream:
    """One sequence through a session: each call is a step, and state is kept between them.

    One caller at a time; a session may have any number of streams.

    Args:
        session: open, and open for as long as the stream is used.
        pairs: input to the output of the previous step that feeds it.
        first: values of state inputs at the first step; zeros for the others.

    Raises:
        UsageError: a pair names what the model does not have, or there is none.
    """

    def __init__(self, session: Session, pairs: Pairs, first: Feeds | None = None) -> None:
        if not pairs:
            raise UsageError(
                "no state pairs are recorded with this model", where=session.model,
                next_step='name them: session.stream({"state": "stateN"})',
            )  # fmt: skip
        check_pairs(pairs, session.inputs, session.outputs, session.model)
        self._session, self._pairs = session, dict(pairs)
        self.reset(first)

    def reset(self, first: Feeds | None = None) -> None:
        """Begin anew: the next step starts from ``first``, zeros for what is not in it.

        Raises:
            UsageError: ``first`` names an input that is no state.
        """
        for name in first or {}:
            if name not in self._pairs:
                raise UsageError("not a state of this stream", got=name, expected=nearest(name, self._pairs))
        self._state: dict[str, Array] = {}
        self._first = dict(first or {})

    @property
    def state(self) -> dict[str, Array]:
        """What the next step starts from; empty before the first one. Not to be written to."""
        return dict(self._state)

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run one step; ``feeds`` has all inputs but the state. A step that fails leaves the state as it was.

        Returns:
            All outputs, the new state among them.

        Raises:
            InvalidInput, EngineError: as the session does.
        """
        if not self._state:
            given = {**feeds, **self._first}
            self._state = first_states(self._pairs, self._session.inputs, given, self._session.model)
        outputs = self._session({**feeds, **self._state})
        state = {name: outputs[output] for name, output in self._pairs.items()}
        # Reused outputs would be written by the next step while it still reads them.
        self._state = {name: array.copy() for name, array in state.items()} if self._session.reuses_outputs else state
        return outputs
