"""What every opened model looks like from outside: a Session around an Engine checks what is fed, runs, and proves it.

Lifecycle, input checks and error mapping live here, once, for all providers.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, final

import msgspec
import numpy as np

import toolkit.machine as machine
from toolkit.errors import EngineError, InvalidInput, UsageError, from_vendor
from toolkit.providers.device import Device
from toolkit.providers.exchange import host_arrays, on_device, place_of, stand_in
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds, TensorSpec, check_feeds, example_inputs

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from toolkit.preprocess import Preprocessing
    from toolkit.providers.streaming import Pairs, Stream


class Execution(msgspec.Struct, frozen=True):
    """Proof of what ran: which provider executed how many nodes, in which precision, with how many threads."""

    provider: str
    version: str
    device: str
    threads: int
    nodes_by_provider: dict[str, int]
    executed_precision: dict[str, int]
    notes: tuple[str, ...] = ()


class Engine(Protocol):
    """One model opened on one device. ``run`` gets feeds that have been checked already.

    An engine may also have ``run_into(feeds, outputs)``, which writes into arrays of the right shapes,
    ``run_values(feeds)``, which takes tensors of its device through DLPack and answers tensors that stay there, and
    ``submit(feeds)``, which answers a Future.

    An engine that runs on a device of its own may have a :class:`Device` as ``device``; one that limits how many calls
    run at the same time says so in ``parallel``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Feeds) -> dict[str, Array]: ...

    def prove(self, feeds: Feeds) -> Execution: ...

    def close(self) -> None: ...


Passed = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
_UNKNOWN = (None, None)
_NOTHING: Passed = {"": (np.dtype(np.void), ())}  # what no feeds are like, not even none


class Rescue(Protocol):
    """What to do when an engine failed in the middle of a run: answer in its place, or raise."""

    def __call__(self, failed: Engine, feeds: Feeds, error: EngineError) -> dict[str, Array]: ...

    def close(self) -> None: ...


_forks = 0
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _forked() -> None:
    """Mark, in the child of a fork, what was opened before it: engines that were copied without their threads.

    They must not run, nor be destroyed, not even by the interpreter's end: that would wait for those threads for ever.
    """
    global _forks
    _forks += 1
    for session in _sessions:
        session.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@final
class Session:
    """A model opened on a target: checks what is fed, runs it, says what ran.

    Any number of threads may call it at the same time.

    Example:
        >>> with toolkit.load("classifier.bundle") as session:
        ...     logits = session({"pixel_values": images})["logits"]
    """

    def __init__(self, engine: Engine, provider: str, target: Target, model: str) -> None:
        self._engine: Engine | None = engine
        self._born = _forks
        _sessions.add(self)
        self._last: threading.local | None = None
        self.rescue: Rescue | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._execution: Execution | None = None
        self._passed = _NOTHING
        self.provider = provider
        self.target = target
        self.model = model
        self.inputs = engine.inputs
        self.outputs = engine.outputs
        self.notes: tuple[str, ...] = ()
        self.labels: tuple[str, ...] = ()
        self.state: dict[str, str] = {}
        self.preprocessing: Preprocessing | None = None

    def preprocess(self, raw: Mapping[str, Any]) -> dict[str, Array]:
        """Turn raw samples (images, text) into what the model takes, as recorded with the model.

        Arrays that the model does not take, such as labels, are left out.

        Raises:
            UsageError: the model came without preprocessing.
        """
        if self.preprocessing is None:
            raise UsageError(
                "no preprocessing is recorded with this model", where=self.model, next_step="feed its inputs"
            )
        names = {spec.name for spec in self.inputs}
        return {name: array for name, array in self.preprocessing.apply(raw).items() if name in names}

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: one array per input, by name: numpy's, or any with DLPack (torch, CuPy, jax, OrtValue), which share
                their memory. Views, read-only arrays and other byte orders are taken as they are.

        Returns:
            One numpy array per output, by name, owned by the caller unless outputs are reused.

        Raises:
            InvalidInput: a name, dtype, rank or size that does not fit.
            EngineError: the engine failed.
        """
        engine = self._engine
        if engine is None or self._born != _forks:
            engine = self._opened()
        # The full check takes longer than a tiny model does, 6 µs instead of a half: it is spared feeds of the same
        # kind as the last ones that passed.
        passed = self._passed
        known = len(feeds) == len(passed)
        try:
            for name, array in feeds.items():
                dtype, shape = passed.get(name, _UNKNOWN)
                if type(array) is not np.ndarray or array.dtype is not dtype or array.shape != shape:
                    known = False
                    break
            if not known:
                return self._run_checked(engine, feeds)
            if self._last is not None:
                return self._run_into(engine, feeds, passed)
            return engine.run(feeds)
        except Exception as exc:
            error = from_vendor(exc, self.model, doing=f"running on {self.provider}")
            if self.rescue is not None and isinstance(error, EngineError):
                return self.rescue(engine, feeds, error)
            raise error from exc

    run = __call__

    def _run_checked(self, engine: Engine, feeds: Feeds) -> dict[str, Array]:
        arrays = host_arrays(feeds)
        if any(map(on_device, arrays.values())):
            return {name: np.asarray(value.numpy()) for name, value in self._on_device(engine, arrays).items()}
        check_feeds(self.inputs, arrays, self.model)
        passed = self._passed = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        return engine.run(arrays) if self._last is None else self._run_into(engine, arrays, passed)

    def _run_into(self, engine: Engine, feeds: Feeds, passed: Passed) -> dict[str, Array]:
        """Run into the arrays that this thread's last call of the same kind answered."""
        assert self._last is not None
        outputs = getattr(self._last, "outputs", None)
        run_into = getattr(engine, "run_into", None)
        same = outputs is not None and run_into is not None and self._last.passed == passed
        found: dict[str, Array] = run_into(feeds, outputs) if same and run_into else engine.run(feeds)
        self._last.passed, self._last.outputs = passed, found
        return found

    def reuse_outputs(self) -> None:
        """From now on, write outputs over those of the calling thread's last call where shapes stay the same.

        Saves allocating large outputs; what a call returned is valid until the same thread's next one.
        """
        self._last = threading.local()

    @property
    def reuses_outputs(self) -> bool:
        return self._last is not None

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run once, and leave the outputs where the provider computes them.

        Args:
            feeds: as in a call; tensors that lie on the provider's device are used there.

        Returns:
            One tensor per output, by name, with ``__dlpack__``, which ``torch.from_dlpack`` and CuPy's share.

        Raises:
            UsageError: this provider's tensors cannot be shared.
            InvalidInput, EngineError: as in a call.
        """
        engine = self._opened()
        try:
            return self._on_device(engine, host_arrays(feeds))
        except Exception as exc:
            raise from_vendor(exc, self.model, doing=f"running on {self.provider}") from exc

    def _on_device(self, engine: Engine, feeds: Mapping[str, Any]) -> dict[str, Any]:
        shapes = {name: stand_in(value) if on_device(value) else value for name, value in feeds.items()}
        check_feeds(self.inputs, shapes, self.model)
        run_values = getattr(engine, "run_values", None)
        if run_values is not None:
            found: dict[str, Any] = run_values(feeds)
            return found
        away = next((name for name, value in feeds.items() if on_device(value)), None)
        if away is None:
            raise UsageError(f"tensors of {self.provider} cannot be shared", where=self.model, next_step="call it")
        raise InvalidInput(
            f"{self.provider} cannot read this tensor", where=f"{self.model}: input '{away}'",
            got=f"on {place_of(feeds[away])}", next_step="copy it to the host first",
        )  # fmt: skip

    def stream(self, state: Pairs | None = None, first: Feeds | None = None) -> Stream:
        """A sequence whose state is kept between calls.

        Args:
            state: model input to the output of the previous step that feeds it; None for what the bundle records.
            first: values of state at the first step; zeros where not given.

        Raises:
            UsageError: a pair that the model does not have, or none at all.
        """
        from toolkit.providers.streaming import Stream

        return Stream(self, self.state if state is None else state, first)

    async def run_async(self, feeds: Feeds) -> dict[str, Array]:
        """Like calling the session, without blocking the event loop.

        As many calls run at a time as there are cores, or together where batches are shared; the rest wait. A call that
        is cancelled before its turn does not run.
        """
        import asyncio  # 15 ms that only asynchronous callers owe

        engine = self._opened()
        submit = getattr(engine, "submit", None)
        arrays = host_arrays(feeds)
        if submit is None or any(map(on_device, arrays.values())):
            return await self._elsewhere(self.run, arrays)
        check_feeds(self.inputs, arrays, self.model)
        try:
            answer: dict[str, Array] = await asyncio.wrap_future(submit(arrays))
        except Exception as exc:
            error = from_vendor(exc, self.model, doing=f"running on {self.provider}")
            if self.rescue is not None and isinstance(error, EngineError):
                return await self._elsewhere(self.rescue, engine, arrays, error)
            raise error from exc
        return answer

    async def _elsewhere(self, call: Callable[..., dict[str, Array]], *args: Any) -> dict[str, Array]:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(machine.usable_cores(), thread_name_prefix="toolkit-session")
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    @property
    def execution(self) -> Execution:
        """Proof of what ran, found on first request by an instrumented run on example inputs."""
        return self._execution or self.prove()

    def prove(self, feeds: Feeds | None = None) -> Execution:
        """The same proof with inputs of the caller's, for models that random inputs do not suit."""
        feeds = example_inputs(self.inputs) if feeds is None else feeds
        check_feeds(self.inputs, feeds, self.model)
        try:
            found = self._opened().prove(feeds)
        except Exception as exc:
            raise from_vendor(exc, self.model, doing=f"proving what runs on {self.provider}") from exc
        self._execution = msgspec.structs.replace(found, notes=(*self.notes, *found.notes))
        return self._execution

    @property
    def parallel(self) -> int:
        """How many calls run at the same time, further ones waiting their turn; 0 where the session sets no limit."""
        return int(getattr(self._opened(), "parallel", 0))

    @property
    def device(self) -> Device | None:
        """What the device tells of itself; None on the CPU."""
        found: Device | None = getattr(self._opened(), "device", None)
        return found

    def warmup(self, runs: int = 3, dims: Mapping[str, int] | None = None) -> None:
        """Run ``runs`` times on example inputs, so that the first real call finds memory and kernels in place."""
        feeds = example_inputs(self.inputs, dims)
        for _ in range(runs):
            self.run(feeds)

    @property
    def engine(self) -> Engine:
        """What runs the model.

        Raises:
            UsageError: the session is closed.
        """
        return self._opened()

    def replace_engine(self, engine: Engine) -> None:
        """Run on ``engine``, which wraps the present one or takes its place; closing the session closes it.

        An engine that has ``submit(feeds)``, which answers a Future, serves :meth:`run_async` with it.
        """
        self._opened()
        self._engine, self._execution = engine, None

    def move_to(self, other: Session) -> None:
        """Take over the engine of ``other``, which is of no use afterwards; calls that run end on the old one.

        The old engine is left to whoever holds it: closing it while it runs, or when its device is gone, could hang.
        """
        self._engine, self.provider, self.target = other.engine, other.provider, other.target
        self._execution, self._passed = None, _NOTHING
        other._engine = None

    def close(self) -> None:
        """Release the engine; calling it again does nothing."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None
        if self._engine is not None:
            if self._born == _forks:
                self._engine.close()
            self._engine = None
            if self.rescue is not None:
                self.rescue.close()
        _sessions.discard(self)

    def leave_behind(self) -> None:
        """Keep the engine from ever being destroyed, by a reference that nobody gives back."""
        if self._engine is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._engine))

    def _opened(self) -> Engine:
        if self._born != _forks:
            raise UsageError(
                "this session was opened before the process forked, and its engine's threads stayed behind",
                where=self.model, next_step="open the model in the child, or start it with 'spawn'",
            )  # fmt: skip
        if self._engine is None:
            raise UsageError(
                "this session is closed", where=self.model, next_step="open the model again with toolkit.load"
            )
        return self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._engine is None else "open"
        return f"Session({self.model!r}, provider={self.provider!r}, {state})"
