"""Keeps a worker that allocates without end from taking the machine along.

Three nets, since each has holes. The worker's data segment is limited to what was free when it started, so that an
allocation beyond that fails, in most engines with an exception that says so; the address space is not limited, because
engines and CUDA reserve far more of it than they use. The schedule looks at the worker's resident set while it waits
for an answer, since shared memory is no data segment. And should the kernel run out of memory first, it is told to take
the worker. Source: getrlimit(2), RLIMIT_DATA; proc(5), oom_score_adj and statm.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from toolkit.profiler.environment import available_memory_bytes

USABLE_SHARE = 0.9
LOOK_EVERY_S = 0.25
_LIKELIEST_VICTIM = 1000


def allowance() -> int | None:
    """Bytes that a worker started now may use; None where the kernel does not tell what is free."""
    available = available_memory_bytes()
    return None if available is None else int(USABLE_SHARE * available)


def guard(pid: int, limit_bytes: int | None) -> None:
    """Limit process ``pid`` and make it the first that the kernel ends; does nothing where neither can be done."""
    if sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(OSError):  # it ended already, which the next request finds out
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(_LIKELIEST_VICTIM), encoding="ascii")
        if limit_bytes is not None:
            _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
            lower = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
            resource.prlimit(pid, resource.RLIMIT_DATA, (lower, hard))


def resident_bytes(pid: int) -> int:
    """Memory that process ``pid`` has in use; 0 where that cannot be told."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    import resource

    return pages * resource.getpagesize()
