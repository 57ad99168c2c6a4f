"""Ctrl-C while something is measured: the first ends the measuring, and nothing that follows it loses what there is.

A command is ended by SIGTERM and SIGHUP in the same way; a library leaves those to the program that it is part of.

Python raises ``KeyboardInterrupt`` between any two bytecodes: between a worker's start and the line that notes it, or
halfway through the file that holds the results. Inside :func:`interrupts` it is raised once, never inside
:func:`shielded` nor after :func:`measuring`, and impatient repetitions are ignored.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final

SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)
PATIENCE_S = 10.0
"""Repetitions are ignored for so long after the first Ctrl-C; whoever still waits then is heard."""


@final
class _Interrupts:
    """The state of the one handler of this process.

    Attributes:
        shields: how many :func:`shielded` blocks the main thread is in.
        over: measuring has ended; what runs now puts results together and writes them.
        pending: a Ctrl-C waits to be raised.
        first_s: when it was pressed.
        signum: of the first signal since the process started.
    """

    def __init__(self) -> None:
        self.installed = False
        self.signum: int | None = None
        self.reset()

    def reset(self) -> None:
        self.shields, self.over, self.pending = 0, False, False
        self.first_s: float | None = None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        repeated = self.first_s is not None
        if self.first_s is not None and now_s - self.first_s < PATIENCE_S:
            return
        self.first_s = now_s
        self.signum = self.signum or signum
        if self.shields or (self.over and not repeated):
            self.pending = True
        else:
            raise KeyboardInterrupt

    def raise_pending(self) -> None:
        if self.pending and not self.shields:
            self.pending = False
            raise KeyboardInterrupt


_state = _Interrupts()
_OURS = (signal.default_int_handler, signal.SIG_DFL, _state.handle)


def _in_main_thread() -> bool:
    """Python delivers signals to the main thread alone."""
    return threading.current_thread() is threading.main_thread()


def exit_code() -> int:
    """What a process that was interrupted ends with: 128 and the number of the signal, as shells have it."""
    return 128 + (_state.signum or signal.SIGINT)


@contextmanager
def interrupts(*, command: bool = False) -> Iterator[None]:
    """Take SIGINT over as the module describes. Inside another such block it does nothing; a handler that somebody else
    installed stays, and so does a signal that is ignored, as SIGHUP is under nohup.

    Args:
        command: this is a process of ours, so take SIGTERM and SIGHUP over too.
    """
    free = [number for number in (SIGNALS if command else SIGNALS[:1]) if _is_free(number)]
    if _state.installed or not free:
        yield
        return
    _state.reset()
    _state.installed = True
    before = {number: signal.signal(number, _state.handle) for number in free}
    try:
        yield
    finally:
        _state.installed = _state.over = False
        if _state.first_s is None:
            for number, handler in before.items():
                # One that an earlier block left behind has nothing to do any more.
                ours = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, ours if handler == _state.handle else handler)
        # Else it stays: it ignores repetitions for a while yet, and then does what Python's own does.


def _is_free(number: int) -> bool:
    """Whether the signal does what it does by default, which for SIGINT is Python's own handler."""
    if not _in_main_thread():
        return False
    handler = signal.getsignal(number)
    return handler in _OURS and not (number == signal.SIGINT and handler == signal.SIG_DFL)


@contextmanager
def measuring() -> Iterator[None]:
    """What a Ctrl-C ends; one that came before is raised here. From its end on Ctrl-C waits for the next such block.

    Raises:
        KeyboardInterrupt: what else.
    """
    if not _in_main_thread():
        yield
        return
    try:
        _state.over = False
        _state.raise_pending()
        _state.first_s = None
        yield
    finally:
        _state.over = True


@contextmanager
def shielded() -> Iterator[None]:
    """Let no Ctrl-C in; one that came is raised at the end. It shields inside :func:`interrupts` only."""
    if not _in_main_thread():
        yield
        return
    _state.shields += 1
    try:
        yield
    finally:
        _state.shields -= 1
        _state.raise_pending()
