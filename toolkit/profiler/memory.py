"""How much memory this process has used at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """The largest resident set so far: VmHWM where there is a /proc, else getrusage (bytes on macOS, KiB elsewhere).

    VmHWM starts anew at exec, while ru_maxrss is inherited from the parent that forked.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no /proc: the next line answers
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
