"""Open broken bundles in processes of their own, and judge what came of it.

A worker opens each file that it is told of with ``toolkit.load`` and runs it once. The one who feeds it sees crashes
(the process is gone), hangs (not opened in time), errors that are not documented, files outside the sandbox. A model
that opens and does not end is "endless": a Loop may say so, and no check can tell in general.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

MEMORY_BYTES = 8 << 30
# Feeds larger than this are not made: how much memory a model wants is not what is looked for here.
_MAX_ELEMENTS = 1 << 20
PATIENCE_SECONDS = 60


def worker() -> None:
    """Read paths from stdin, answer each with one line of JSON on the stream that was the standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # engines print
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import warnings

    warnings.simplefilter("ignore")
    for line in sys.stdin:
        path, provider, cache = json.loads(line)
        os.environ["TOOLKIT_CACHE"] = cache

        def tell(kind: str, detail: str = "") -> None:
            answers.write(json.dumps([kind, detail]) + "\n")
            answers.flush()

        tell(*attempt(Path(path), provider, tell))


def attempt(path: Path, provider: str, tell: Callable[[str], None]) -> tuple[str, str]:
    """What came of opening and running: "opened", "ran", "refused" or "bug", and detail; tells before it runs."""
    import numpy as np

    import toolkit
    from toolkit.errors import ToolkitError
    from toolkit.tensors import complete_dims, concrete_shape, example_inputs

    session = None
    try:
        session = toolkit.load(path, provider)
        sizes = complete_dims(session.inputs)
        if any(float(np.prod(concrete_shape(spec, sizes), dtype=float)) > _MAX_ELEMENTS for spec in session.inputs):
            return "opened", ""
        tell("running")
        session(example_inputs(session.inputs))
        return "ran", ""
    except ToolkitError as exc:
        text = str(exc)
        return ("bug", f"more than one line: {text}") if "\n" in text else ("refused", f"{type(exc).__name__}: {text}")
    except Exception:  # noqa: BLE001 - that is what is looked for
        return "bug", traceback.format_exc()[-1500:]
    finally:
        if session is not None:
            session.close()


class Worker:
    """A process that opens bundles, started anew when it is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def judge(self, path: Path, provider: str, cache: Path) -> tuple[str, str]:
        """What came of ``path``: "ran", "opened", "refused", "endless", "bug", "crash" or "hang", and details."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([str(path), provider, str(cache)]).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            return self._gone()
        late = "hang"
        while line := self._line(process):
            kind, detail = json.loads(line)
            if kind != "running":
                return kind, detail
            late = "endless"
        if line is not None:
            return self._gone()
        process.kill()
        self._gone()
        return late, f"no answer in {PATIENCE_SECONDS} s"

    def _line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """The next line of its answers; empty when the process is gone, None when it is late."""
        assert process.stdout is not None
        while b"\n" not in self._pending:
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE_SECONDS)
            if not ready:
                return None
            block = os.read(process.stdout.fileno(), 1 << 16)
            if not block:
                return b""
            self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _gone(self) -> tuple[str, str]:
        assert self._process is not None
        code = self._process.wait()
        self._process, self._pending = None, b""
        return "crash", f"exit code {code}"

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "from tests.bundle.fuzzing import worker; worker()"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


_ROOT = Path(__file__).parent.parent.parent


class Sandbox:
    """A folder in which one case at a time is opened; what else appears in it is an escape."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outside = folder / "outside"
        self.outside.mkdir(parents=True, exist_ok=True)
        self.path = folder / "case" / "deep" / "case.bundle"
        self.cache = folder / "cache"

    def put(self, content: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)
        self._hash = hashlib.sha256(content).hexdigest()

    def escaped(self) -> str:
        """What was touched outside the cache, in words; empty when nothing was. Clears the sandbox."""
        wrong = ""
        if hashlib.sha256(self.path.read_bytes()).hexdigest() != self._hash:
            wrong = "the bundle itself was changed"
        known = {self.outside, self.path, self.path.parent, self.path.parent.parent, self.cache}
        for found in sorted(self.folder.rglob("*")):
            inside = found.is_relative_to(self.cache) and not found.is_symlink()
            if found not in known and not inside:
                wrong = f"{found} appeared"
        if unpacking := list(self.cache.glob("bundles/.unpack.*")):
            wrong = f"a partial extraction is left: {unpacking[0]}"
        for place in (self.cache, self.path.parent.parent):
            shutil.rmtree(place, ignore_errors=True)
        return wrong


class Tally:
    """Counts of outcomes, and the cases that must not be."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.endless: list[int] = []
        self.wrong: list[tuple[int, str, str]] = []

    def add(self, seed: int, what: str, kind: str, detail: str) -> None:
        self.counts[kind] += 1
        if kind == "refused":
            self.errors[detail.split(":", 1)[0]] += 1
        elif kind == "endless":
            self.endless.append(seed)
        elif kind not in ("ran", "opened"):
            self.wrong.append((seed, what, f"{kind}: {detail}"))
