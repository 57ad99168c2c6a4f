"""The schedule's end of a worker: start it, ask it, and find out what became of it when it does not answer."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Protocol, TypeVar, final

import msgspec

from toolkit.errors import ToolkitError, one_line
from toolkit.profiler.cases import Status
from toolkit.profiler.guard import LOOK_EVERY_S, allowance, guard, resident_bytes
from toolkit.profiler.protocol import Refusal, Reply, Request

COMMAND = (sys.executable, "-m", "toolkit.profiler.worker")
LARGEST_REPLY = 64 * 1024 * 1024
_READ = 1 << 16
_GRACE_S = 0.5

Expected = TypeVar("Expected", bound=msgspec.Struct)


class CaseEnded(ToolkitError):
    """A case cannot go on; the others do."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Worker(Protocol):
    """What the schedule needs of a worker; tests bring their own."""

    def ask(self, request: Request, expected: type[Expected], timeout_s: float) -> Expected: ...

    def close(self) -> None: ...


@final
class ProcessWorker:
    """A worker process, in a process group of its own that dies with it.

    Args:
        command: what to run; it speaks :mod:`toolkit.profiler.protocol` over stdin and stdout.
        show_output: let what the engine prints through to the standard error instead of keeping it for error messages.
        memory_bytes: how much it may use; None for what is free now.
    """

    def __init__(
        self, command: tuple[str, ...] = COMMAND, *, show_output: bool = False, memory_bytes: int | None = None
    ) -> None:
        self._log: IO[bytes] | None = None if show_output else tempfile.TemporaryFile()  # noqa: SIM115 - see close()
        self._rest = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            # Ctrl-C in the terminal reaches this process alone, which then decides when its workers end.
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)},
        )
        self._memory_bytes = allowance() if memory_bytes is None else memory_bytes
        guard(self._process.pid, self._memory_bytes)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Request, expected: type[Expected], timeout_s: float) -> Expected:
        """Send ``request`` and wait for its reply.

        Raises:
            CaseEnded: the worker refused, ended, hung or answered garbage.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
        except BrokenPipeError as exc:
            raise self._ended() from exc
        line = self._read_line(time.monotonic() + timeout_s, timeout_s)
        try:
            reply = msgspec.json.decode(line, type=Reply)
        except msgspec.DecodeError as exc:
            said = one_line(line.decode(errors="replace"), 80)
            raise CaseEnded("failed", f"its worker answered garbage: {said!r}") from exc
        if isinstance(reply, Refusal):
            raise CaseEnded(reply.status, reply.reason)
        if not isinstance(reply, expected):
            raise CaseEnded("failed", f"its worker answered {type(reply).__name__} to {type(request).__name__}")
        return reply

    def _read_line(self, end: float, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        parts = [self._rest]
        size = 0
        while b"\n" not in parts[-1]:
            while not select.select([descriptor], [], [], min(LOOK_EVERY_S, max(0.0, end - time.monotonic())))[0]:
                self._watch_memory()
                if time.monotonic() >= end:
                    raise CaseEnded("failed", f"no answer within {timeout_s:.0f} s: it hangs")
            parts.append(os.read(descriptor, _READ))
            size += len(parts[-1])
            if not parts[-1]:
                raise self._ended()
            if size > LARGEST_REPLY:
                raise CaseEnded("failed", "its worker answered without end")
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def _watch_memory(self) -> None:
        used = resident_bytes(self._process.pid)
        if self._memory_bytes is not None and used > self._memory_bytes:
            self._process.kill()
            free = f"{self._memory_bytes / 1e9:.1f} GB"
            raise CaseEnded("failed", f"its worker took {used / 1e9:.1f} GB of memory where {free} could be spared")

    def _ended(self) -> CaseEnded:
        """Why the process is gone: its signal or exit code, and the last thing it said."""
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return CaseEnded("failed", "its worker closed the connection")
        return CaseEnded("failed", f"its worker {_cause(code)}{self._last_words()}")

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4096))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {one_line(lines[-1], 200)}" if lines else ""

    def close(self) -> None:
        """End the process and all it started; calling it again does nothing."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._log is not None:
            self._log.close()


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
