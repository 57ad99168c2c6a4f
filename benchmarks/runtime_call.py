"""What a session's call costs beside the engine's own, and whether millions of calls stay right in flat memory.

    python benchmarks/runtime_call.py call [--models resnet50.onnx ...]    # ratios, measured in turns
    python benchmarks/runtime_call.py import                               # what `import toolkit` and load add
    python benchmarks/runtime_call.py soak                                 # 8 threads, shapes changing

Run it alone. Targets: a tiny model at most 1.05 × InferenceSession.run on cpu and 0.9 × compiled_model(inputs) on
openvino, larger ones within 1 %; at most 20 ms added to importing and opening; no wrong answer, memory grown by < 2 %.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import helper, numpy_helper

import toolkit
from toolkit.providers.session import Session
from toolkit.tensors import Array, example_inputs

BLOCK_S, ROUNDS = 0.02, 150
CORES_QUIET_S = 0.06
# Both in float32: this toolkit turns the engine's own rounding to bfloat16 off, which would be another computation.
PLAIN = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
HEAVY = ("torch", "onnx", "click", "rich")
BARE = """
import time; start = time.perf_counter()
import numpy, {module}
{open}
print(time.perf_counter() - start)
"""
OURS = """
import time; start = time.perf_counter()
import numpy, {module}
import toolkit
session = toolkit.load({path!r}, {provider!r})
print(time.perf_counter() - start)
import sys
print([name for name in {heavy!r} if name in sys.modules])
"""
OPEN = {
    "cpu": "onnxruntime.InferenceSession({path!r}, providers=['CPUExecutionProvider'])",
    "openvino": "openvino.Core().compile_model({path!r}, 'CPU')",
}
MODULES = {"cpu": "onnxruntime", "openvino": "openvino"}


def linear(path: Path, width: int, classes: int, layers: int = 1) -> Path:
    """``layers`` square products and one to ``classes``; the batch is free."""
    generator = np.random.default_rng(0)
    sizes = [width] * layers + [classes]
    weights = [
        numpy_helper.from_array(generator.standard_normal((a, b)).astype(np.float32) / a**0.5, f"w{index}")
        for index, (a, b) in enumerate(pairwise(sizes))
    ]
    nodes = [
        helper.make_node("MatMul", ["x" if not i else f"y{i - 1}", f"w{i}"], [f"y{i}"]) for i in range(len(weights))
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, ["n", width])], [value(nodes[-1].output[0], 1, ["n", classes])], weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


# call


def calls(paths: Sequence[Path], tiny: Path) -> None:
    for path in paths:
        feeds = example_inputs(toolkit.load(path, "cpu").inputs)
        for provider, bare in (("cpu", ort_call(path, feeds)), ("openvino", openvino_call(path, feeds))):
            with toolkit.load(path, provider) as session:
                mine, theirs, ratio = raced(partial(session, feeds), bare)
            target = {"cpu": 1.05, "openvino": 0.9}[provider] if path == tiny else 1.01
            print(
                f"{path.stem:<14} {provider:<9} ours {mine * 1e6:>10.2f} µs  engine {theirs * 1e6:>10.2f} µs  "
                f"ratio {ratio:.3f}  at most {target}: {'holds' if ratio <= target else 'MISSED'}",
                flush=True,
            )


def ort_call(path: Path, feeds: dict[str, Array]) -> Callable[[], object]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return lambda: session.run(names, feeds)


def openvino_call(path: Path, feeds: dict[str, Array]) -> Callable[[], object]:
    compiled = openvino.Core().compile_model(str(path), "CPU", PLAIN)
    return lambda: compiled(feeds)


def raced(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """Median seconds of both, and the median ratio of blocks that took turns, each after the cores are quiet."""
    pair = {"ours": ours, "theirs": theirs}
    once = min(_timed(theirs, 3) for _ in range(3))
    count = max(1, round(BLOCK_S / once))
    quiet = CORES_QUIET_S if once > 1e-3 else 0.0  # tiny models run on the calling thread alone
    rounds = ROUNDS if once < 5e-3 else 40
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name in random.sample(list(pair), 2):
            time.sleep(quiet)
            pair[name]()
            found[name].append(_timed(pair[name], count))
    ratios = [a / b for a, b in zip(found["ours"], found["theirs"], strict=True)]
    return statistics.median(found["ours"]), statistics.median(found["theirs"]), statistics.median(ratios)


def _timed(call: Callable[[], object], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begun) / count


# import


def imports(path: Path, runs: int) -> None:
    for provider, module in MODULES.items():
        bare = BARE.format(module=module, open=OPEN[provider].format(path=str(path)))
        ours = OURS.format(module=module, path=str(path), provider=provider, heavy=HEAVY)
        times: dict[str, list[float]] = {"bare": [], "ours": []}
        loaded: set[str] = set()
        for _ in range(runs):
            for name, code in random.sample([("bare", bare), ("ours", ours)], 2):
                lines = subprocess.run(
                    [sys.executable, "-c", code], capture_output=True, text=True, check=True
                ).stdout.splitlines()
                times[name].append(float(lines[0]))
                loaded |= set(json.loads(lines[1].replace("'", '"'))) if name == "ours" else set()
        added = statistics.median(times["ours"]) - statistics.median(times["bare"])
        print(
            f"{provider:<9} bare {statistics.median(times['bare']) * 1e3:.0f} ms, with toolkit "
            f"{statistics.median(times['ours']) * 1e3:.0f} ms: {added * 1e3:+.1f} ms; loaded of {', '.join(HEAVY)}: "
            f"{', '.join(sorted(loaded)) or 'none'}; {'holds' if added <= 0.02 and not loaded else 'MISSED'}",
            flush=True,
        )


# soak


def soak(session: Session, calls_in_all: int, sizes: Sequence[int], threads: int = 8) -> None:
    """Every answer is compared with the one a single thread got before; memory is read after a tenth of the calls."""
    (spec,) = session.inputs
    feeds = [
        {spec.name: example_inputs(session.inputs, {spec.dynamic_dims[0]: size}, seed=size)[spec.name]}
        for size in sizes
    ]
    wanted = [session(feed) for feed in feeds]
    wrong = [0] * threads
    memory: list[int] = []
    each = calls_in_all // threads
    warm = threading.Barrier(threads, action=lambda: memory.append(resident_bytes()))

    def work(number: int) -> None:
        for index in range(each):
            if index == each // 10:
                warm.wait()
            choice = (index + number) % len(feeds)
            for name, array in session(feeds[choice]).items():
                close = np.allclose(array, wanted[choice][name], rtol=1e-4, atol=1e-5)
                wrong[number] += array.shape != wanted[choice][name].shape or not close

    begun = time.perf_counter()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    grown = resident_bytes() / memory[0] - 1
    print(
        f"{Path(session.model).stem:<14} {session.provider:<9} {each * threads} calls in "
        f"{time.perf_counter() - begun:.0f} s, {sum(wrong)} wrong, memory {grown:+.2%} after warm-up; "
        f"{'holds' if not sum(wrong) and grown < 0.02 else 'MISSED'}",
        flush=True,
    )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["call", "import", "soak"])
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="more models")
    parser.add_argument("--runs", type=int, default=0, help="processes for import (21); calls for soak (1,000,000)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="toolkit-benchmark-") as name:
        tiny = linear(Path(name) / "tiny.onnx", 784, 10)
        if given.what == "call":
            calls([tiny, linear(Path(name) / "layers.onnx", 512, 512, 8), *given.models], tiny)
        elif given.what == "import":
            imports(tiny, given.runs or 21)
        else:
            for provider in MODULES:
                count = given.runs or 1_000_000
                with toolkit.load(tiny, provider) as session:
                    soak(session, count if provider == "cpu" else count // 5, (1, 2, 3, 1, 8))
                for path in given.models:
                    with toolkit.load(path, provider) as session:
                        soak(session, 20_000, (1, 2, 4))


if __name__ == "__main__":
    main()
