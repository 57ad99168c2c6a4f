"""Quality and speed of finished files on one provider, in a process of its own: ``quantization_race.py JOB RESULT``.

Three jobs: ``judge`` opens files one after the other and says how good each is, writing after each, so that a file
that brings the process down is known; ``race`` opens all of them and lets them take turns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np
from quantization_peers import one_line, samples

from toolkit.data import open_data
from toolkit.evaluator.api import evaluate
from toolkit.evaluator.stepping import steps
from toolkit.graph.facts import facts
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.quantizer.race import race
from toolkit.tensors import Array, Feeds
from toolkit.verifier.metrics import compare_arrays

Job = dict[str, Any]
RACE_FEEDS = 4


def opened(job: Job, path: str) -> Session:
    target = registry.target(job["target"])
    return registry.provider(target.provider).open(path, target)


def race_feeds(job: Job) -> list[Feeds]:
    """A few single samples of the test data, with the state that the float model had when it met them."""
    return list(islice(samples(job), RACE_FEEDS))


# quality


def outputs(session: Session, job: Job) -> dict[str, Array]:
    """All floating outputs over the test data, carrying state where the model has some."""
    inputs = facts(Path(job["float"])).inputs
    data = open_data(job["test"], inputs=inputs, batch_size=1)
    kept: dict[str, list[Array]] = {}
    for _, found in steps(session, data, inputs):
        for name, values in found.items():
            if values.dtype.kind == "f":
                kept.setdefault(name, []).append(values.reshape(1, -1))
    return {name: np.concatenate(values) for name, values in kept.items()}


def snr_db(wanted: dict[str, Array], got: dict[str, Array]) -> float:
    """Of the worst output."""
    metrics = [compare_arrays(wanted[name], got[name], name) for name in wanted]
    if any(item.nonfinite_mismatches for item in metrics):
        return float("-inf")
    return min(item.snr_db for item in metrics)


def judged(job: Job) -> Iterator[dict[str, Any]]:
    """Per variant: quality, and the time of a single call."""
    feeds = race_feeds(job)
    reference: dict[str, Array] | None = None
    for name, path in job["variants"].items():
        yield {"name": name, "started": True}
        try:
            with opened(job, path) as session:
                found: dict[str, Any] = {"name": name, "call_ms": _call_ms(session, feeds)}
                if job["labelled"]:
                    found["quality"] = 100 * evaluate(session, job["test"]).metrics["accuracy"]
                else:
                    if reference is None:
                        with opened(job, job["float"]) as baseline:
                            reference = outputs(baseline, job)
                    found["quality"] = min(200.0, snr_db(reference, outputs(session, job)))
            yield found
        except Exception as exc:  # noqa: BLE001 - a peer's file may fail in any way; its row says how
            yield {"name": name, "error": one_line(exc)}


def _call_ms(session: Session, feeds: list[Feeds]) -> float:
    times = []
    for index in range(5):
        start = perf_counter_ns()
        session(feeds[index % len(feeds)])
        times.append((perf_counter_ns() - start) / 1e6)
    return min(times)


# speed


class Timed:
    """A session that keeps a log of how long its calls took."""

    def __init__(self, session: Session) -> None:
        self._session, self.log = session, list[int]()

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        start = perf_counter_ns()
        found = self._session(feeds)
        self.log.append(perf_counter_ns() - start)
        return found


def raced(job: Job) -> dict[str, Any]:
    """Ratios of time to the baseline's, and the median latency of each, from the same interleaved calls."""
    feeds = race_feeds(job)
    with ExitStack() as stack:
        sessions = {name: Timed(stack.enter_context(opened(job, path))) for name, path in job["variants"].items()}
        baseline = sessions.pop(job["baseline"])
        found = race(baseline, sessions, feeds, budget_s=job["budget_s"])  # type: ignore[arg-type]
        everyone = {job["baseline"]: baseline, **sessions}
        latency = {name: median(session.log) / 1e6 for name, session in everyone.items()}
    ratios = {name: {"ratio": item.ratio, "interval": item.interval} for name, item in found.items()}
    return {"ratios": ratios, "p50_ms": latency, "rounds": min((item.rounds for item in found.values()), default=0)}


def main(job_path: str, result_path: str) -> None:
    job: Job = json.loads(Path(job_path).read_text())
    with Path(result_path).open("w") as lines:
        for item in judged(job) if job["kind"] == "judge" else [raced(job)]:
            lines.write(json.dumps(item) + "\n")
            lines.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
