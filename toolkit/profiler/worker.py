"""The process that one case is measured in: ``python -m toolkit.profiler.worker``, driven over stdin and stdout.

It imports no more than an application that embeds the engine would. Engines print as they please, so the real standard
output is kept for replies and everything else that is written there goes to the standard error.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import BinaryIO

import msgspec
import numpy as np

from toolkit.errors import EngineError, NotApplicable, ProviderUnavailable, ToolkitError, from_vendor
from toolkit.profiler.cases import Case, Status
from toolkit.profiler.clock import now_ns
from toolkit.profiler.gauges import Gauges
from toolkit.profiler.inputs import Sizes, random_feeds, read_feeds, shapes, sizes, tiled
from toolkit.profiler.instrumenting import instrument
from toolkit.profiler.memory import peak_memory_bytes
from toolkit.profiler.protocol import (
    HOLDS_NAN,
    Block,
    Instrument,
    Measure,
    NodesTimed,
    Open,
    Opened,
    Proof,
    Prove,
    Refusal,
    Reply,
    Request,
    Tried,
    Try,
)
from toolkit.profiler.quiet import wait_until_quiet
from toolkit.profiler.streams import Load, Streams
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.tensors import FLOATS, Array, Feeds, batch_dim

DEVICE_RUNS = 3
"""Per block: calls beside the measured ones that are split into computation and copies, where the device tells."""
KEPT_SAMPLES = 1000
"""Of one block; a tiny model makes thousands of calls, of which every k-th is kept."""
_STATUS: tuple[tuple[type[ToolkitError], Status], ...] = (
    (NotApplicable, "not_applicable"),
    (ProviderUnavailable, "unavailable"),
    (ToolkitError, "failed"),
)


class Bench:
    """One opened session and the arrays it is fed in turn."""

    def __init__(self, case: Case) -> None:
        base = peak_memory_bytes()
        start = now_ns()
        engine = registry.provider(case.target.provider)
        engine.require(case.target)
        imported = now_ns()
        self._session = engine.open(case.path, case.target) if case.opener is None else open_source(case)
        loaded = now_ns()
        self._case, self._specs = case, case.inputs or self._session.inputs
        chosen = sizes(self._specs, case.batch, case.dims)
        self._feeds = self._feeds_of(chosen)
        self._turn = 0
        outputs, first_ns = self._first_inference(chosen)
        self._call_ns = self._timed(self._feeds[0])
        streams = concurrent_calls(case, self._session)
        self._streams = Streams(self._session.run, self._feeds, streams) if streams > 1 else None
        wait_until_quiet()
        self._gauges = Gauges(self._session)
        self.opened = Opened(
            import_ns=imported - start,
            load_ns=loaded - imported,
            first_inference_ns=first_ns,
            precision=case.precision or floating_type(self._session),
            batch=chosen.batch,
            dims=chosen.dims,
            shapes=shapes(self._feeds[0]),
            base_memory_bytes=base,
            warnings=[*odd_answers(outputs), *serialized(case, self._session)],
            streams=streams,
            free_batch=batch_dim(self._specs) is not None,
            instruments=self._gauges.instruments,
        )

    def _feeds_of(self, chosen: Sizes) -> list[dict[str, Array]]:
        if not self._case.feeds:
            return random_feeds(self._specs, chosen.all, self._case.seed)
        found = read_feeds(self._case.feeds)
        return tiled(found, self._specs, chosen.batch) if self._case.scenario == "offline" else found

    def _first_inference(self, chosen: Sizes) -> tuple[Feeds, int]:
        before = now_ns()
        try:
            outputs = self._session.run(self._feeds[0])
        except ToolkitError as exc:
            if not chosen.guessed:
                raise
            sizes_text = ", ".join(f"{name}={chosen.all[name]}" for name in chosen.guessed)
            raise EngineError(str(exc), next_step=f"sizes were guessed ({sizes_text}): give --dim") from exc
        return outputs, now_ns() - before

    def _timed(self, feeds: Feeds) -> int:
        before = now_ns()
        self._session.run(feeds)
        return now_ns() - before

    def measure(self, duration_ns: int) -> Block:
        """Run for ``duration_ns``, at least once.

        The first call finds cold caches and is dropped, unless calls are so long that it makes no difference: of
        calls of a quarter of a second the first was measured to be no slower than the others.
        """
        gc.disable()  # its pauses are this program's, not the engine's
        self._gauges.begin()
        try:
            load = self._load(duration_ns)
        finally:
            gc.enable()
        readings = self._gauges.end(load.runs)
        device = self._session.device
        times = [] if device is None or self._streams else device.times(self._feeds[0], DEVICE_RUNS)
        wait_until_quiet()
        # An odd step, since the number of sets of inputs is even: every set is kept alike.
        step = (len(load.samples_ns) // KEPT_SAMPLES) | 1
        return Block(
            load.samples_ns[::step],
            len(load.samples_ns),
            peak_memory_bytes(),
            done=load.done,
            window_ns=load.window_ns,
            readings=readings,
            device_ns=[item.compute_ns for item in times],
            copy_ns=[item.copy_ns for item in times],
        )

    def attempt(self, batch: int, duration_ns: int) -> Tried:
        """Samples per second at another ``batch``: the best of some short blocks, the first call dropped.

        The best, since whatever else runs on the machine can only make a block slower.
        """
        feeds = self._feeds_of(sizes(self._specs, batch, self._case.dims))
        streams = Streams(self._session.run, feeds, self.opened.streams)
        before = now_ns()
        self._session.run(feeds[0])
        short = now_ns() - before < duration_ns
        try:
            loads = [streams.measure(duration_ns // 5, drop_first=short) for _ in range(5 if short else 1)]
        finally:
            streams.close()
        wait_until_quiet()
        rate = max(batch * load.done * 1e9 / max(1, load.window_ns) for load in loads)
        return Tried(batch, rate, peak_memory_bytes())

    def _load(self, duration_ns: int) -> Load:
        if self._streams is None:
            return self._timed_calls(duration_ns)
        return self._streams.measure(duration_ns, drop_first=self._call_ns < duration_ns)

    def _timed_calls(self, duration_ns: int) -> Load:
        samples: list[int] = []
        run, feeds, turn = self._session.run, self._feeds, self._turn
        drop_first = self._call_ns < duration_ns
        if drop_first:
            run(feeds[turn % len(feeds)])
        began = after = now_ns()
        end = after + duration_ns
        while after < end:
            turn += 1
            feed = feeds[turn % len(feeds)]
            before = now_ns()
            run(feed)
            after = now_ns()
            samples.append(after - before)
        self._turn = turn
        return Load(samples, len(samples), after - began, len(samples) + drop_first)

    def instrument(self, request: Instrument) -> NodesTimed:
        return instrument(self._session, self._case, self._feeds, request)

    def prove(self) -> Proof:
        return Proof(self._session.prove(self._feeds[0]))


def concurrent_calls(case: Case, session: Session) -> int:
    """How many calls run at the same time; offline as many as the session has room for, one where it does not say."""
    return max(1, session.parallel) if case.scenario == "offline" else case.streams


def serialized(case: Case, session: Session) -> tuple[str, ...]:
    """What to know of streams that wait for each other."""
    if not 0 < session.parallel < case.streams:
        return ()
    how_many = "one call" if session.parallel == 1 else f"{session.parallel} calls"
    return (f"its session runs {how_many} at a time: of {case.streams} streams the others wait their turn",)


def open_source(case: Case) -> Session:
    """Open a model that is not a file: ``case.opener`` gives the torch module with its input and output specs."""
    from toolkit.providers.torch_ import open_module_session

    module_name, _, function = (case.opener or "").partition(":")
    try:
        module, inputs, outputs = getattr(importlib.import_module(module_name), function)(case.path)
        return open_module_session(module, inputs, outputs, case.target, case.model)
    except Exception as exc:
        raise from_vendor(exc, case.path, doing="opening the source") from exc


def floating_type(session: Session) -> str:
    """What a model that no file describes seems to compute in: the type of the first floating output or input."""
    return next((spec.dtype for spec in (*session.outputs, *session.inputs) if spec.dtype in FLOATS), "")


def odd_answers(outputs: Feeds) -> tuple[str, ...]:
    return tuple(f"output '{name}' {HOLDS_NAN}" for name, array in outputs.items() if _has_nan(array))


def _has_nan(array: Array) -> bool:
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def take_over_stdout() -> BinaryIO:
    """Keep the real standard output for replies; what else is written to descriptor 1 goes to the standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; elsewhere the end of stdin has to do.

    Source: prctl(2), PR_SET_PDEATHSIG = 1, SIGKILL = 9.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more. What has no explanation ends the process, traceback on stderr."""
    bench: Bench | None = None
    for line in requests:
        request = msgspec.json.decode(line, type=Request)
        reply: Reply
        try:
            if isinstance(request, Open):
                bench = Bench(request.case)
                reply = bench.opened
            else:
                reply = answer(bench, request)
        except ToolkitError as exc:
            reply = Refusal(next(status for error, status in _STATUS if isinstance(exc, error)), str(exc))
        replies.write(msgspec.json.encode(reply) + b"\n")
        replies.flush()


def answer(bench: Bench | None, request: Measure | Try | Prove | Instrument) -> Reply:
    assert bench is not None, "open comes first"
    if isinstance(request, Instrument):
        return bench.instrument(request)
    if isinstance(request, Try):
        return bench.attempt(request.batch, request.duration_ns)
    return bench.measure(request.duration_ns) if isinstance(request, Measure) else bench.prove()


if __name__ == "__main__":
    die_with_parent()
    serve(sys.stdin.buffer, take_over_stdout())
