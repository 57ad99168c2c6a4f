"""How far the profiler's numbers can be believed: wrong verdicts, found slowdowns, agreement with others, own cost.

    python benchmarks/profiler.py same        # A/A: one model under two names; how often is one called faster?
    python benchmarks/profiler.py slower      # A/B: 1.05 times as long; how often is it called slower?
    python benchmarks/profiler.py loaded      # both again, while another process keeps one core busy half of the time
    python benchmarks/profiler.py agreement   # medians beside a plain loop and benchmark_app, from 50 µs to 100 ms
    python benchmarks/profiler.py cost        # what measuring costs beyond the time that is measured

Each says what it measured and whether the project's own target holds. Run them alone: they take 5 to 15 minutes each.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import toolkit
from toolkit.profiler.records import ComparisonRecord, ProfileReport
from toolkit.profiler.schedule import Progress

WIDTH, LAYERS, ROWS = 256, 20, 16
SLOWER, TOLERANCE = 1.05, 0.005
LOAD = """
import time
while True:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    time.sleep(0.05)
"""
LOOP = """
import sys, time, numpy as np, onnxruntime as ort
path, seconds = sys.argv[1], float(sys.argv[2])
session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
names = [item.name for item in session.get_outputs()]
rng = np.random.default_rng(0)
feed = {item.name: rng.standard_normal(item.shape).astype(np.float32) for item in session.get_inputs()}
session.run(names, feed)
samples, end = [], time.perf_counter() + seconds
while time.perf_counter() < end:
    before = time.perf_counter_ns()
    session.run(names, feed)
    samples.append(time.perf_counter_ns() - before)
print(sorted(samples)[len(samples) // 2])
"""


# models


def layers(path: Path, count: int, extra: int = 0) -> Path:
    """A chain of MatMul and Relu, ``count`` times square, then once through ``extra`` features and back."""
    generator = np.random.default_rng(0)
    sizes = [WIDTH] * (count + 1) + ([extra, WIDTH] if extra else [])
    nodes, weights, last = [], [], "x"
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        weight = generator.standard_normal((rows, columns)).astype(np.float32) / rows**0.5
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], [f"r{index}"]))
        last = f"r{index}"
    return _written(path, nodes, weights, [ROWS, WIDTH], last, [ROWS, WIDTH])


def convolutions(path: Path, count: int, channels: int, size: int) -> Path:
    """A chain of 3x3 Conv and Relu."""
    generator = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index in range(count):
        weight = generator.standard_normal((channels, channels, 3, 3)).astype(np.float32) / (9 * channels) ** 0.5
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    shape = [1, channels, size, size]
    return _written(path, nodes, weights, shape, last, shape)


def _written(
    path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], shape: list[int], last: str,
    out: list[int],
) -> Path:  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, shape)], [value(last, 1, out)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


# verdicts


def compared(first: Path, second: Path, budget_s: float, seed: int) -> tuple[ComparisonRecord, ProfileReport]:
    report = toolkit.profile([str(first), str(second)], budget_s=budget_s, baseline=first.name, seed=seed)
    return report.comparisons[0], report


def same(folder: Path, runs: int) -> int:
    """Wrong verdicts among ``runs`` comparisons of a file with its copy, 10 s each."""
    first = layers(folder / "a.onnx", LAYERS)
    second = Path(shutil.copy(first, folder / "b.onnx"))
    return _counted("A/A, 10 s", first, second, 10.0, runs, lambda verdict: verdict != "no significant difference")[0]


def slower(folder: Path, runs: int, extra: int) -> tuple[int, int]:
    """How many of ``runs`` comparisons of 30 s call the slower model slower, and how many call it faster."""
    first, second = pair(folder, extra)
    return _counted("A/B, 30 s", first, second, 30.0, runs, lambda verdict: verdict == "slower")


def pair(folder: Path, known: int) -> tuple[Path, Path]:
    """Two models of which the second takes :data:`SLOWER` times as long, by a run of two minutes.

    Args:
        known: by how many features, from an earlier such run on this machine; 0 to look for it.
    """
    first, extra = layers(folder / "a.onnx", LAYERS), WIDTH // 2
    if known:
        return first, layers(folder / "b.onnx", LAYERS, known)
    for _ in range(6):
        second = layers(folder / "b.onnx", LAYERS, extra)
        found, _ = compared(first, second, 120.0, seed=1)
        print(f"{extra} more features and back: {found.ratio:.4f} {_interval(found)} times as long", flush=True)
        if abs(found.ratio - SLOWER) <= TOLERANCE:
            return first, second
        extra = max(4, round(extra * (SLOWER - 1) / max(0.01, found.ratio - 1)))
    sys.exit("no model of the wanted speed was found")


def _counted(
    what: str, first: Path, second: Path, budget_s: float, runs: int, counts: Callable[[str], bool]
) -> tuple[int, int]:
    hits = faster = noticed = 0
    widths: list[float] = []
    for run in range(runs):
        found, report = compared(first, second, budget_s, seed=100 + run)
        hits, faster = hits + counts(found.verdict), faster + (found.verdict == "faster")
        noticed += any("other processes" in text for text in report.warnings)
        if found.ratio_ci:
            widths.append((found.ratio_ci[1] - found.ratio_ci[0]) / 2)
        print(f"{what} {run + 1:2}: {found.ratio:.4f} {_interval(found)} {found.verdict}", flush=True)
    print(
        f"{what}: {hits} of {runs}, {faster} called faster; half-width of intervals {statistics.median(widths):.2%} "
        f"(median); other load noticed in {noticed} runs",
        flush=True,
    )
    return hits, faster


def _interval(found: ComparisonRecord) -> str:
    return "" if found.ratio_ci is None else f"[{found.ratio_ci[0]:.4f}, {found.ratio_ci[1]:.4f}]"


@contextmanager
def load() -> Iterator[None]:
    """One core busy half of the time."""
    process = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        yield
    finally:
        process.kill()
        process.wait()


# agreement


def agreement(folder: Path, rounds: int, extra: Sequence[Path]) -> None:
    """Medians of this profiler, a plain loop and benchmark_app, which take turns; ratios of medians over rounds."""
    models = [
        layers(folder / "layers-4.onnx", 4), layers(folder / "layers-40.onnx", 40),
        convolutions(folder / "conv-2.onnx", 2, 64, 56), convolutions(folder / "conv-8.onnx", 8, 128, 40),
        convolutions(folder / "conv-16.onnx", 16, 128, 80), *extra,
    ]  # fmt: skip
    print(f"{'model':<22} {'engine':<9} {'ours':>10} {'theirs':>10} {'ratio':>7}  holds")
    for path in models:
        for engine, other in (("cpu", plain_loop), ("openvino", benchmark_app)):
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(rounds):
                for ask, into in random.sample([(_ours(engine), ours), (other, theirs)], 2):
                    into.append(ask(path))
            mine, their = statistics.median(ours), statistics.median(theirs)
            allowed = max(0.05 * their, 5e3 if their < 1e6 else 0)
            print(
                f"{path.name:<22} {engine:<9} {mine / 1e6:>7.3f} ms {their / 1e6:>7.3f} ms {mine / their:>7.3f}  "
                f"{'yes' if abs(mine - their) <= allowed else 'NO'}",
                flush=True,
            )


def _ours(engine: str) -> Callable[[Path], float]:
    def median(path: Path) -> float:
        case = toolkit.profile(str(path), engine, budget_s=3.0, processes=1).cases[0]
        assert case.latency_ns is not None and case.latency_ns.p50 is not None, case.reason
        return float(case.latency_ns.p50)

    return median


def plain_loop(path: Path) -> float:
    done = subprocess.run([sys.executable, "-c", LOOP, str(path), "3"], capture_output=True, text=True, check=True)
    return float(done.stdout)


def benchmark_app(path: Path) -> float:
    program = Path(sys.executable).with_name("benchmark_app")
    # In float32, as the target says: on a CPU that has bfloat16 benchmark_app would compute in that, twice as fast.
    command = [str(program), "-m", str(path), "-api", "sync", "-hint", "latency", "-t", "3", "-d", "CPU"]
    command += ["-infer_precision", "f32"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Median:\s+([\d.]+) (us|ms)", text)
    assert found, text[-500:]
    return float(found[1]) * (1e6 if found[2] == "ms" else 1e3)


# cost


def cost(folder: Path) -> float:
    """Seconds that a run of four cases takes beyond its budget, process starts, imports and loads; proofs apart."""
    first = layers(folder / "a.onnx", LAYERS)
    second = convolutions(folder / "b.onnx", 8, 64, 28)
    marks: list[tuple[float, str]] = []

    def note(progress: Progress) -> None:
        marks.append((time.perf_counter(), progress.text.split()[0]))

    budget_s = 12.0
    begun = time.perf_counter()
    toolkit.profile([str(first), str(second)], ["cpu", "openvino"], budget_s=budget_s, on_progress=note)
    ended = time.perf_counter()
    marks.append((ended, "end"))
    spent = {
        kind: sum(after[0] - mark[0] for mark, after in pairwise(marks) if mark[1] == kind)
        for kind in ("opening", "measuring", "checking")
    }
    before = marks[0][0] - begun
    own = ended - begun - budget_s - spent["opening"] - spent["checking"]
    print(
        f"wall {ended - begun:.2f} s: budget {budget_s:.0f}, opening {spent['opening']:.2f}, "
        f"proofs {spent['checking']:.2f}, before the first case {before:.2f}; own cost {own:.2f} s",
        flush=True,
    )
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["same", "slower", "loaded", "agreement", "cost"])
    parser.add_argument("--runs", type=int, default=0, help="default 40 for same, 20 for slower, 5 for agreement")
    parser.add_argument("--extra", type=int, default=0, help="features of the slower model, found by an earlier run")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="more models for agreement, of fixed shapes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="toolkit-benchmark-") as name:
        folder = Path(name)
        if given.what == "same":
            wrong = same(folder, given.runs or 40)
            print(f"target, at most 2 wrong verdicts: {'holds' if wrong <= 2 else 'MISSED'}")
        elif given.what == "slower":
            runs = given.runs or 20
            found, _ = slower(folder, runs, given.extra)
            print(f"target, {0.9 * runs:g} of {runs} called slower: {'holds' if found >= 0.9 * runs else 'MISSED'}")
        elif given.what == "loaded":
            first, second = pair(folder, given.extra)
            copy = Path(shutil.copy(first, folder / "c.onnx"))
            wanted = "no significant difference"
            with load():
                wrong = _counted("A/A, 10 s", first, copy, 10.0, given.runs or 20, lambda text: text != wanted)[0]
                _, faster = _counted("A/B, 30 s", first, second, 30.0, given.runs or 10, lambda text: text == "slower")
            print(f"target, at most 2 wrong verdicts: {'holds' if wrong + faster <= 2 else 'MISSED'}")
        elif given.what == "agreement":
            agreement(folder, given.runs or 5, given.models)
        else:
            costs = [cost(folder) for _ in range(given.runs or 3)]
            print(f"target, at most 1.5 s: {'holds' if statistics.median(costs) <= 1.5 else 'MISSED'}")


if __name__ == "__main__":
    main()
