"""One call that waits for an engine, and what it can share a batch with."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, final

import numpy as np

from toolkit.errors import EngineError
from toolkit.providers.session import Engine
from toolkit.tensors import Array, Feeds

# An input that all rows of a batch share (a sample rate, say) is compared by content up to this size.
_COMPARED_BYTES = 1024

State = Literal["waiting", "leading", "taken", "done", "gone"]


class Layout:
    """Which axis of which input counts rows, and so what two calls need to have in common."""

    def __init__(self, names: Sequence[str], inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        self.inputs, self.outputs = dict(inputs), dict(outputs)
        self._axes = [(name, inputs.get(name)) for name in names]

    def describe(self, feeds: Feeds) -> tuple[Hashable, int, int]:
        """What has to be equal for two calls to share a batch; the call's rows; elements in each of them."""
        key: list[Hashable] = []
        rows = elements = 0
        for name, axis in self._axes:
            array = feeds[name]
            shape = array.shape
            if axis is None:
                key.append((shape, array.tobytes()) if array.nbytes <= _COMPARED_BYTES else object())
                continue
            rest = shape[:axis] + shape[axis + 1 :]
            key.append(rest)
            rows = shape[axis]
            elements += math.prod(rest)
        return tuple(key), rows, elements

    def joined(self, calls: Sequence[Call]) -> dict[str, Array]:
        feeds = dict(calls[0].feeds)
        for name, axis in self.inputs.items():
            feeds[name] = np.concatenate([call.feeds[name] for call in calls], axis)
        return feeds

    def check_rows(self, outputs: Mapping[str, Array], rows: int) -> None:
        for name, axis in self.outputs.items():
            if outputs[name].shape[axis] != rows:
                raise EngineError(f"output '{name}' has {outputs[name].shape[axis]} rows in a batch of {rows}")


@final
class Call:
    """A call from its arrival to its answer. All but ``result`` is written by whoever holds the engine's lock, or by
    the one thread that leads the batch it is in."""

    __slots__ = (
        "_answer",
        "_error",
        "_part",
        "engine",
        "feeds",
        "future",
        "key",
        "room",
        "rows",
        "since",
        "state",
        "wake",
    )  # fmt: skip

    def __init__(
        self, feeds: Feeds, key: Hashable, rows: int, room: int, future: Future[dict[str, Array]] | None = None
    ) -> None:
        self.feeds, self.key, self.rows, self.room, self.future = feeds, key, rows, room, future
        self.since = time.perf_counter()
        self.state: State = "waiting"
        self.engine: Engine | None = None
        self.wake = threading.Lock()  # cheaper than an Event, and it can be waited for with a timeout
        self.wake.acquire()
        self._answer: dict[str, Array] | None = None
        self._part: tuple[int, int, Mapping[str, int]] | None = None
        self._error: Exception | None = None

    def begins(self) -> bool:
        """Whether the call is still wanted; from here on it cannot be cancelled."""
        return self.future is None or self.future.running() or self.future.set_running_or_notify_cancel()

    def answer(self, outputs: dict[str, Array], part: tuple[int, int, Mapping[str, int]] | None = None) -> None:
        """``outputs``, or the rows from start to stop of them."""
        self._answer, self._part = outputs, part
        self._finish()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._finish()

    def _finish(self) -> None:
        was, self.state = self.state, "done"
        if self.future is not None:
            self._resolve(self.future)
        elif was != "leading":  # who leads is awake
            self.wake.release()

    def _resolve(self, future: Future[dict[str, Array]]) -> None:
        try:
            outputs = self.result()
        except Exception as exc:  # noqa: BLE001  whoever waits for the future raises it
            future.set_exception(exc)
        else:
            future.set_result(outputs)

    def result(self) -> dict[str, Array]:
        """The call's own arrays; copied here, so that callers copy side by side."""
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        if self._part is None:
            return self._answer
        start, stop, axes = self._part
        return {name: _rows(array, axes[name], start, stop) for name, array in self._answer.items()}


def _rows(array: Array, axis: int, start: int, stop: int) -> Array:
    index: tuple[Any, ...] = (slice(None),) * axis + (slice(start, stop),)
    return np.array(array[index], order="C")
