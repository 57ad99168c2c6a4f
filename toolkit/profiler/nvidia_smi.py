"""What nvidia-smi says of the GPUs here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable


def nvidia_smi(fields: Iterable[str]) -> list[list[str]]:
    """A list of ``fields`` for each GPU, as text; empty where there is no nvidia-smi.

    Raises:
        OSError: it does not answer, or says what is wrong.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise OSError(f"nvidia-smi does not answer: {exc}") from exc
    if done.returncode:
        raise OSError(f"nvidia-smi failed: {done.stdout.strip() or done.stderr.strip()}")
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.strip().splitlines()]
