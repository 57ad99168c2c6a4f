"""Sessions whose engine is a Python function, so that every output is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from toolkit.providers.session import Execution, Session
from toolkit.targets import Target
from toolkit.tensors import Feeds, parse_spec

Outputs = dict[str, np.ndarray]


class FunctionEngine:
    def __init__(self, function: Callable[[Feeds], Outputs], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        self._function = function
        self.inputs, self.outputs = tuple(map(parse_spec, inputs)), tuple(map(parse_spec, outputs))

    def run(self, feeds: Feeds) -> Outputs:
        return self._function(feeds)

    def prove(self, feeds: Feeds) -> Execution:
        raise NotImplementedError

    def close(self) -> None: ...


@pytest.fixture
def session_of() -> Callable[..., Session]:
    """``session_of(function, inputs=…, outputs=…)``: a session that answers ``function(feeds)``."""

    def make(
        function: Callable[[Feeds], Outputs],
        inputs: tuple[str, ...] = ("x:float32[batch,3]",),
        outputs: tuple[str, ...] = ("logits:float32[batch,3]",),
    ) -> Session:
        engine = FunctionEngine(function, inputs, outputs)
        return Session(engine, "function", Target(name="function", provider="null"), "function.model")

    return make
