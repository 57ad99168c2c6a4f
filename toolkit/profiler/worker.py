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
from toolkit.profiler.inputs import Sizes, random_feeds, read_feeds, shapes, sizes
from toolkit.profiler.instrumenting import instrument
from toolkit.profiler.memory import peak_memory_bytes
from toolkit.profiler.protocol import (
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
)
from toolkit.profiler.quiet import wait_until_quiet
from toolkit.providers import registry
from toolkit.providers.base import Session
from toolkit.tensors import FLOATS, Array, Feeds

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
        self._case = case
        specs = case.inputs or self._session.inputs
        chosen = sizes(specs, case.batch, case.dims)
        self._feeds = read_feeds(case.feeds) if case.feeds else random_feeds(specs, chosen.all, case.seed)
        self._turn = 0
        outputs, first_ns = self._first_inference(chosen)
        self._call_ns = self._timed(self._feeds[0])
        self.opened = Opened(
            import_ns=imported - start,
            load_ns=loaded - imported,
            first_inference_ns=first_ns,
            precision=case.precision or floating_type(self._session),
            batch=chosen.batch,
            dims=chosen.dims,
            shapes=shapes(self._feeds[0]),
            base_memory_bytes=base,
            warnings=list(odd_answers(outputs)),
        )
        wait_until_quiet()

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
        try:
            samples = self._timed_calls(duration_ns)
        finally:
            gc.enable()
        wait_until_quiet()
        # An odd step, since the number of sets of inputs is even: every set is kept alike.
        step = (len(samples) // KEPT_SAMPLES) | 1
        return Block(samples[::step], len(samples), peak_memory_bytes())

    def _timed_calls(self, duration_ns: int) -> list[int]:
        samples: list[int] = []
        run, feeds, turn = self._session.run, self._feeds, self._turn
        if self._call_ns < duration_ns:
            run(feeds[turn % len(feeds)])
        after = now_ns()
        end = after + duration_ns
        while after < end:
            turn += 1
            feed = feeds[turn % len(feeds)]
            before = now_ns()
            run(feed)
            after = now_ns()
            samples.append(after - before)
        self._turn = turn
        return samples

    def instrument(self, request: Instrument) -> NodesTimed:
        return instrument(self._session, self._case, self._feeds, request)

    def prove(self) -> Proof:
        return Proof(self._session.prove(self._feeds[0]))


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
    return tuple(f"output '{name}' holds NaN" for name, array in outputs.items() if _has_nan(array))


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


def answer(bench: Bench | None, request: Measure | Prove | Instrument) -> Reply:
    assert bench is not None, "open comes first"
    if isinstance(request, Instrument):
        return bench.instrument(request)
    return bench.measure(request.duration_ns) if isinstance(request, Measure) else bench.prove()


if __name__ == "__main__":
    die_with_parent()
    serve(sys.stdin.buffer, take_over_stdout())
