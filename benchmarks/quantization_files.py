"""The files that a run works with: a case built into the cache, and processes that make or measure variants."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from quantization_models import Case

from toolkit.data import open_data, write_npz
from toolkit.graph.facts import facts
from toolkit.providers import registry
from toolkit.tensors import Array, Feeds, TensorSpec, example_inputs

HERE = Path(__file__).resolve().parent
SPLITS = ("calibration", "choose", "test")
_RACE_FEEDS = 4
_POLL_S = 0.05


class Built:
    """A case in the cache folder. ``feeds`` hold state inputs too, for those who cannot step a model by themselves."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.float = folder / "float.onnx"
        self.paths = {name: folder / f"{name}.npz" for name in SPLITS}
        self.feeds, self.race_feeds = folder / "feeds.npz", folder / "race-feeds.npz"
        with np.load(self.paths["test"]) as archive:
            self.labelled = "labels" in archive.files
        self.counts = {name: _count(path) for name, path in self.paths.items()}


def _count(path: Path) -> int:
    with np.load(path) as archive:
        return max(len(archive[name]) for name in archive.files if archive[name].ndim and name != "state_pairs")


def build(case: Case, cache: Path, material: Path) -> Built:
    """The case's files, made where the cache lacks them."""
    folder, done = cache / case.name, cache / case.name / "built"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        case.build(folder / "float.onnx", material)
        made = case.samples(material)
        for name, arrays in zip(SPLITS, made[:3], strict=True):
            write_npz(folder / f"{name}.npz", arrays, state=made.state)
        for name, split, limit in (("feeds", "calibration", None), ("race-feeds", "test", _RACE_FEEDS)):
            np.savez(folder / f"{name}.npz", **_fed(folder / "float.onnx", folder / f"{split}.npz", limit))
        done.touch()
    return Built(case, folder)


def _fed(model: Path, data_path: Path, limit: int | None) -> dict[str, Array]:
    """Everything that the float model is fed with over the samples, one row per sample; state as it came out."""
    inputs = facts(model).inputs
    data = open_data(data_path, inputs=inputs, batch_size=1, limit=limit)
    rows: list[Feeds] = []
    with registry.provider("cpu").open(model) as session:
        state = {name: _zeros(inputs, name) for name in data.state}
        for batch in data:
            rows.append({**batch.feeds, **state})
            if data.state:
                outputs = session(rows[-1])
                state = {name: outputs[output] for name, output in data.state.items()}
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _zeros(inputs: tuple[TensorSpec, ...], name: str) -> Array:
    return np.zeros_like(example_inputs(inputs)[name])


def child(script: str, job: Mapping[str, Any], folder: Path, *, timeout_s: float, limit_mb: float) -> tuple[str, str]:
    """Run a sibling script on ``job``.

    Returns:
        The text it wrote as its result, and why it ended badly ("" where it did not).
    """
    folder.mkdir(parents=True, exist_ok=True)
    job_path, result_path, log = folder / "job.json", folder / "result.json", folder / "log.txt"
    result_path.unlink(missing_ok=True)
    job_path.write_text(json.dumps(job))
    with log.open("w") as stream:
        # ONNX Runtime's shape inference leaves files where it runs, so it runs in the folder that goes away.
        process = subprocess.Popen(
            [sys.executable, str(HERE / script), str(job_path), str(result_path)],
            stdout=stream, stderr=stream, cwd=folder,
        )  # fmt: skip
        reason = _watched(process, timeout_s, limit_mb)
    text = result_path.read_text() if result_path.is_file() else ""
    if not reason and process.returncode:
        last = log.read_text().strip().splitlines()[-1:] or [""]
        died = f"killed by signal {-process.returncode}" if process.returncode < 0 else f"exit {process.returncode}"
        reason = f"{died} {last[0]}".strip()
    return text, reason


def _watched(process: subprocess.Popen[bytes], timeout_s: float, limit_mb: float) -> str:
    """Wait for ``process``; end it where it takes too long or too much memory, and say so."""
    end = time.monotonic() + timeout_s
    while process.poll() is None:
        used = _resident_mb(process.pid)
        too_late = time.monotonic() > end
        if too_late or used > limit_mb:
            process.kill()
            process.wait()
            return f"not done after {timeout_s:.0f} s" if too_late else f"needs more than {limit_mb:.0f} MB"
        time.sleep(_POLL_S)
    return ""


def _resident_mb(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0
