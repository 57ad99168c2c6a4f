"""What ``batching="auto"`` and ``instances="auto"`` do to throughput and tails under 32 concurrent callers.

    python benchmarks/runtime_batching.py                               # the acceptance set, on cpu and on openvino
    python benchmarks/runtime_batching.py resnet50 cnn.onnx --provider cpu
    python benchmarks/runtime_batching.py bert_6layer --dim seq=4 --pays
    python benchmarks/runtime_batching.py transformer_digits --dispatcher  # leader and followers, or a thread between?

A model is a name from ``toolkit zoo list`` (exported into --cache on first use, or NAME/float.onnx found there), a
file, or ``fcnn_4096``. Each way of calling it is opened in one process; ways take turns in slices, and a ratio is the
median over rounds, so that drift hits all alike. Ways without batching: callers call the session themselves; a thread
pool of one thread per core calls it for them; both again with one thread per call (cpu) or a stream per core
(openvino); a thread pool around the bare engine. Run it alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import toolkit
import toolkit.machine as machine
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.runtime.batching import Batching, BatchingEngine
from toolkit.targets import Target
from toolkit.tensors import Feeds, example_inputs

CALLERS, SLICE_S, ROUNDS = 32, 1.0, 7
PAYS, HARMLESS = 2.0, 0.95
SMALL_ZOO = (
    "fcnn_digits", "cnn_digits", "rnn_digits", "gru_digits", "transformer_digits", "fcnn_mnist", "cnn_mnist",
    "lstm_speech", "gru_speech", "text_classifier", "causal_lm",
)  # fmt: skip
LARGE_ZOO = ("resnet18", "resnet50", "mobilenet_v2", "convnext_tiny", "vit_s16", "distilbert")
Call = Callable[[Feeds], Any]


@dataclass(frozen=True)
class Case:
    """A model at some sizes; ``pays`` where a batch is known to, so that twice the throughput is asked for."""

    model: str
    dims: dict[str, int]
    pays: bool = False


@dataclass
class Way:
    """One way of calling a model, and what was measured of it."""

    name: str
    call: Call
    notes: tuple[str, ...] = ()
    speeds: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)

    def percentile_ms(self, part: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


ACCEPTANCE = (
    Case("fcnn_4096", {}, pays=True),
    Case("bert_6layer", {"seq": 4}, pays=True),
    Case("bert_6layer", {"seq": 64}),
    *(Case(name, {}) for name in (*SMALL_ZOO, *LARGE_ZOO)),
)


# models


def model_file(name: str, cache: Path) -> Path:
    """The file of a model; made where it is not there."""
    if name.endswith(".onnx"):
        return Path(name)
    for path in (cache / name / "float.onnx", cache / f"{name}.onnx"):
        if path.is_file():
            return path
    cache.mkdir(parents=True, exist_ok=True)
    if name == "fcnn_4096":
        return _fcnn(path)
    toolkit.export(f"zoo:{name}", output=path)
    return path


def _fcnn(path: Path) -> Path:
    """784 to 4096 to 4096 to 10, which reads 80 MB of weights whatever the batch."""
    generator, sizes = np.random.default_rng(0), (784, 4096, 4096, 10)
    nodes, weights = [], []
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2
        weight = generator.standard_normal((rows, columns)).astype(np.float32) / rows**0.5
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [f"h{index}" if index else "x", f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], ["y" if last else f"h{index + 1}"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["batch", 784])], [value("y", 1, ["batch", 10])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


# ways


@contextlib.contextmanager
def ways(path: Path, provider: str, row: Feeds, with_dispatcher: bool) -> Iterator[list[Way]]:
    with contextlib.ExitStack() as stack:
        cores = machine.usable_cores()
        pool = stack.enter_context(ThreadPoolExecutor(cores))

        def opened(**settings: Any) -> Session:
            target = settings.pop("target", provider)
            return stack.enter_context(toolkit.load(path, target, **settings))

        def pooled(call: Call) -> Call:
            return lambda feeds: pool.submit(call, feeds).result()

        plain, narrow = opened(), opened(target=_narrow(provider, cores))
        found = [Way("own threads", plain), Way("pool", pooled(plain))]
        found += [Way("narrow, own threads", narrow), Way("narrow, pool", pooled(narrow))]
        found.append(Way("bare engine, pool", pooled(_bare(path, plain))))
        auto, both = opened(batching="auto"), opened(batching="auto", instances="auto")
        found += [Way("batching=auto", auto, auto.notes), Way("batching, instances=auto", both, both.notes)]
        if with_dispatcher:
            engine = opened(batching=Batching()).engine
            assert isinstance(engine, BatchingEngine)
            submit = engine.submit
            found += [Way("leader and followers", engine.run), Way("dispatcher", lambda feeds: submit(feeds).result())]
        for way in found:
            way.call(row)
        yield found


def _narrow(provider: str, cores: int) -> Target:
    found = registry.provider(provider).instances(Target(name=provider, provider=provider), cores)
    return found[0] if found else Target(name=provider, provider=provider)


def _bare(path: Path, plain: Session) -> Call:
    """The engine's own call with its own defaults."""
    if plain.provider == "cpu":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_outputs()]
        return lambda feeds: session.run(names, feeds)
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    local = threading.local()

    def call(feeds: Feeds) -> Any:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return local.request.infer(dict(feeds))

    return call


# measuring


def measure(way: Way, row: Feeds, callers: int, duration_s: float) -> None:
    """One slice: calls per second of all callers, and how long each call took."""
    end = time.perf_counter() + duration_s
    taken: list[list[float]] = [[] for _ in range(callers)]

    def calling(samples: list[float]) -> None:
        while (start := time.perf_counter()) < end:
            way.call(row)
            samples.append(time.perf_counter() - start)

    threads = [threading.Thread(target=calling, args=(samples,)) for samples in taken]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    way.speeds.append(sum(map(len, taken)) / (time.perf_counter() - begin))
    way.latencies_s += [sample for samples in taken for sample in samples]


def ratio(one: Way, other: Way) -> float:
    return statistics.median(a / b for a, b in zip(one.speeds, other.speeds, strict=True))


def run(case: Case, provider: str, arguments: argparse.Namespace) -> dict[str, Any]:
    path = model_file(case.model, arguments.cache)
    with toolkit.load(path, provider) as session:
        row = example_inputs(session.inputs, {**_known(session, case.dims)})
    with ways(path, provider, row, arguments.dispatcher) as found:
        for _ in range(arguments.rounds):
            for way in found:
                measure(way, row, arguments.callers, arguments.slice)
                time.sleep(0.05)  # until the engine's threads have stopped spinning
        return _told(case, provider, found)


def _known(session: Session, dims: dict[str, int]) -> dict[str, int]:
    """Sizes by name, and on OpenVINO, which forgets names, for any dim that is not the batch."""
    own = {dim for spec in session.inputs for dim in spec.dynamic_dims}
    if set(dims) <= own or not dims:
        return dims
    return dict.fromkeys(own - {"batch"}, next(iter(dims.values())))


def _told(case: Case, provider: str, found: Sequence[Way]) -> dict[str, Any]:
    auto = [way for way in found if way.name.endswith("auto")]
    others = [way for way in found if way not in auto and way.name not in ("leader and followers", "dispatcher")]
    best = max(others, key=lambda way: way.speed)
    sizes = ", ".join(f"{name}={size}" for name, size in case.dims.items())
    print(f"\n{case.model} {sizes} on {provider}, best without batching: {best.name}")
    print(f"  {'way':26} {'calls/s':>9} {'of own':>7} {'of best':>7} {'p50 ms':>8} {'p99 ms':>8}")
    for way in found:
        print(
            f"  {way.name:26} {way.speed:9.0f} {ratio(way, found[0]):7.2f} {ratio(way, best):7.2f}"
            f" {way.percentile_ms(0.5):8.2f} {way.percentile_ms(0.99):8.2f}"
        )
    for way in auto:
        print(f"  {way.name}: {'; '.join(way.notes)}")
    # Batches are compared with the best of all; that nothing is lost, with the same session without batching.
    gain = ratio(auto[0], best) if case.pays else ratio(auto[0], found[0])
    asked = PAYS if case.pays else HARMLESS
    print(f"  {'ok' if gain >= asked else 'MISSED'}: {gain:.2f}, asked {asked}")
    ways = [
        {"name": way.name, "calls_s": way.speeds, "p99_ms": way.percentile_ms(0.99), "notes": way.notes}
        for way in found
    ]
    return {"model": case.model, "dims": case.dims, "provider": provider, "gain": gain, "asked": asked, "ways": ways}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--provider", action="append")
    parser.add_argument("--dim", action="append", default=[], help="NAME=SIZE")
    parser.add_argument("--pays", action="store_true", help="ask for twice the throughput")
    parser.add_argument("--dispatcher", action="store_true", help="also a thread between callers and engine")
    parser.add_argument("--cache", type=Path, default=Path("bench-cache"))
    parser.add_argument("--callers", type=int, default=CALLERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--slice", type=float, default=SLICE_S, help="seconds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    dims = {name: int(size) for name, size in (item.split("=") for item in arguments.dim)}
    cases = [Case(model, dims, arguments.pays) for model in arguments.models] or list(ACCEPTANCE)
    providers = arguments.provider or ["cpu", "openvino"]
    results = [run(case, provider, arguments) for case in cases for provider in providers]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    missed = [f"{item['model']} on {item['provider']}" for item in results if item["gain"] < item["asked"]]
    print(f"\n{len(results) - len(missed)} of {len(results)} hold{'; missed: ' if missed else ''}{', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
