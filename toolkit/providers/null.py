"""No engine: answers zeros of the right shape. For tests of everything that surrounds an engine, on any machine.

A null model can also be slow, and fail in the ways that real engines fail, so that schedulers are tested with processes
that really crash and hang.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, final

import msgspec
import numpy as np

from toolkit.errors import EngineError, InvalidModel
from toolkit.providers.base import Availability, Available, Provider
from toolkit.providers.session import Execution
from toolkit.targets import PRECISIONS, Target
from toolkit.tensors import FLOATS, Array, Feeds, TensorSpec, check_feeds, concrete_shape, numpy_dtype

Failure = Literal["", "raise", "exit", "segfault", "hang", "noise", "nan", "allocate", "share"]


class NullModel(msgspec.Struct, frozen=True):
    """What a null model file holds, as JSON.

    Attributes:
        delay_ns: how long a run takes (slept, so it costs no core).
        sample_ns: how much longer it takes for each sample of its batch.
        failure: what a run does wrong, from the run after the first ``fail_after`` on.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delay_ns: int = 0
    sample_ns: int = 0
    failure: Failure = ""
    fail_after: int = 0


def _raise() -> None:
    raise EngineError("the null engine failed, as its model asks")


def _exit() -> None:
    os._exit(7)


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    while True:
        time.sleep(3600)


def _noise() -> None:
    """Write to the standard output as engines do: past Python, straight to the descriptor, and through Python."""
    os.write(1, b"null engine: loading kernels\n\x00\xff{]\n")
    sys.stdout.write("null engine says hello\n")
    sys.stdout.flush()


def _allocate() -> None:
    """Use memory without end."""
    kept = []
    while True:
        kept.append(bytearray(b"x" * 10_000_000))


def _share() -> None:
    """Use memory without end that is shared, as that of engines with several processes is: no limit stops it."""
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 10_000_000))
        kept[-1].write(b"x" * 10_000_000)
        time.sleep(0.002)


_FAILURES: Mapping[str, Callable[[], None]] = {
    "raise": _raise,
    "exit": _exit,
    "segfault": _segfault,
    "hang": _hang,
    "noise": _noise,
    "allocate": _allocate,
    "share": _share,
}


@final
class NullEngine:
    def __init__(self, model: NullModel) -> None:
        self.inputs, self.outputs = model.inputs, model.outputs
        self._model, self._runs = model, 0

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self._runs += 1
        delay_ns = self._model.delay_ns + self._model.sample_ns * _batch(feeds)
        if delay_ns:
            time.sleep(delay_ns / 1e9)
        failing = self._model.failure if self._runs > self._model.fail_after else ""
        if failing in _FAILURES:
            _FAILURES[failing]()
        sizes = check_feeds(self.inputs, feeds, "null")
        return {spec.name: _answer(spec, sizes, failing == "nan") for spec in self.outputs}

    def prove(self, feeds: Feeds) -> Execution:
        return Execution("null", "1", "none", 1, {"null": 0}, {}, ("nothing was computed",))

    def close(self) -> None:
        pass


def _batch(feeds: Feeds) -> int:
    return max((array.shape[0] for array in feeds.values() if array.ndim), default=1)


def _answer(spec: TensorSpec, sizes: Mapping[str, int], nan: bool) -> Array:
    fill = np.nan if nan and spec.dtype in FLOATS else 0
    return np.full(concrete_shape(spec, sizes), fill, numpy_dtype(spec.dtype))


@final
class NullProvider(Provider):
    """Opens a JSON file with ``inputs`` and ``outputs`` instead of an ONNX graph; never chosen by auto."""

    name = "null"
    precisions = PRECISIONS
    extra = "test"

    def probe(self, device: str = "") -> Availability:
        return Available("1", ("none",))

    def known_options(self) -> tuple[str, ...]:
        return ()

    def open_engine(self, model: Path, target: Target) -> NullEngine:
        try:
            return NullEngine(msgspec.json.decode(model.read_bytes(), type=NullModel))
        except (msgspec.DecodeError, json.JSONDecodeError) as exc:
            raise InvalidModel(
                "not a null model", where=model, got=exc, expected="JSON with inputs and outputs"
            ) from exc
