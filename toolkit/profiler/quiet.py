"""Wait until this process's threads sleep, so that whoever measures next has the cores to itself.

Engines keep their threads spinning for a while after a call, waiting for the next: ONNX Runtime about 45 ms, torch's
OpenMP about 10 ms. Turning that off would be easier and wrong: on two cores ONNX Runtime then took 1.1 to 1.75 times
as long, and no application turns it off (docs/decisions).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

LIMIT_S = 0.5
_TASKS = Path("/proc/self/task")
_PAUSE_S = 0.001
# Where thread states cannot be read: longer than any spinning we know.
_BLIND_PAUSE_S = 0.06


def wait_until_quiet(limit_s: float = LIMIT_S) -> bool:
    """Wait until no other thread of this process is running or runnable; False when ``limit_s`` passed before that."""
    if not _TASKS.is_dir():
        time.sleep(_BLIND_PAUSE_S)
        return True
    end = time.monotonic() + limit_s
    while running_threads():
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_S)
    return True


def running_threads() -> int:
    """Threads of this process, but for the calling one, that the kernel has on a core or in line for one."""
    own = str(threading.get_native_id())
    return sum(_state(task) == "R" for task in _TASKS.iterdir() if task.name != own)


def _state(task: Path) -> str:
    """The state letter of proc(5), behind the command's closing parenthesis; "" for a thread that has ended."""
    try:
        line = (task / "stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return line.rpartition(")")[2].split()[0]
