"""Candidates take turns without being in each other's way."""

from __future__ import annotations

import threading
import time

import numpy as np

from toolkit.quantizer.race import race
from toolkit.tensors import Array, Feeds


class Spinning:
    """A session whose thread keeps a core busy for a while after each call, as engines' threads do."""

    def __init__(self) -> None:
        self.until = 0.0
        self.thread: threading.Thread | None = None

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        self.until = time.monotonic() + 0.03
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._spin, daemon=True)
            self.thread.start()
        return {}

    def _spin(self) -> None:
        while time.monotonic() < self.until:
            pass


class Watching:
    """A session that counts the calls during which another one's thread was running."""

    def __init__(self, other: Spinning) -> None:
        self.other = other
        self.calls = self.disturbed = 0

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        self.calls += 1
        thread = self.other.thread
        self.disturbed += thread is not None and thread.is_alive() and time.monotonic() < self.other.until
        return {}


def test_nobody_runs_beside_the_threads_of_the_turn_before() -> None:
    busy = Spinning()
    watching = Watching(busy)
    race(watching, {"busy": busy}, [{"x": np.zeros(1, np.float32)}], budget_s=0.1)  # type: ignore[arg-type, dict-item]  # sessions by duck typing
    assert watching.calls > 20
    assert watching.disturbed == 0
