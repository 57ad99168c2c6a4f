"""How fast a bundle opens: fresh processes in turns, plain engine against toolkit, medians and their ratio.

Each model is opened four ways per engine: the plain ``.onnx`` by the engine alone with its defaults (at float32, since
OpenVINO's default on some CPUs is bfloat16), the plain file by ``toolkit.load``, a bundle without prepared forms, and
the bundle with them. Two times of each: from opening to the first result with everything imported, and from the start
of the process. Last, what ``import toolkit`` and ``toolkit.load`` add to the engine's own opening of the same file.

    python benchmarks/runtime_opening.py MODEL.onnx [MODEL.onnx …] [--rounds 9] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Runs in a process of its own: argv is way, engine, path, start of the process. Prints one line of JSON.
CHILD = """
import json, sys, time
way, engine, path, start = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
import numpy as np
if engine == "cpu": import onnxruntime
else: import openvino
before = time.perf_counter_ns()
if way != "engine":
    import importlib, toolkit; toolkit.load; importlib.import_module("toolkit.providers." + engine)
    if way != "file": importlib.import_module("toolkit.runtime.opening")
imported = time.perf_counter_ns()

TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "f32": "float32", "i64": "int64"}
def feeds(items):
    sizes = lambda shape: [dim if isinstance(dim, int) else (1 if axis == 0 else 64) for axis, dim in enumerate(shape)]
    return {name: np.ones(sizes(shape), TYPES.get(dtype, dtype)) for name, dtype, shape in items}

if way == "engine" and engine == "cpu":
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    opened = time.perf_counter_ns()
    answer = session.run(None, feeds((item.name, item.type, item.shape) for item in session.get_inputs()))[0]
elif way == "engine":
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    opened = time.perf_counter_ns()
    shape = lambda port: [dim.get_length() if dim.is_static else "dim" for dim in port.get_partial_shape()]
    ports = [(port.get_any_name(), port.get_element_type().get_type_name(), shape(port)) for port in compiled.inputs]
    answer = compiled(feeds(ports))[0]
else:
    session = toolkit.load(path, engine)
    opened = time.perf_counter_ns()
    answer = session(feeds((spec.name, spec.dtype, spec.shape) for spec in session.inputs))[session.outputs[0].name]
done = time.perf_counter_ns()
print(json.dumps({"import": imported - before, "open": opened - imported, "first": done - imported,
                  "process": time.time_ns() - start, "answer": float(np.abs(answer).sum()),
                  "loaded": sorted({"torch", "onnx", "click", "rich"} & set(sys.modules))}))
"""
WAYS = ("engine", "file", "bundle", "prepared")
ENGINES = ("cpu", "openvino")


def opened(way: str, engine: str, path: Path) -> dict[str, float]:
    """The times of one opening in a fresh process, in ns."""
    command = [sys.executable, "-c", CHILD, way, engine, str(path), str(time.time_ns())]
    # With bytecode, as an installed package has it; the first round, which is dropped, writes it.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment.setdefault("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / "toolkit-bytecode"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{way} on {engine}: {done.stderr[-800:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if found.pop("loaded"):
        raise SystemExit(f"{way} on {engine} loaded what it must not: {done.stdout}")
    return found


def bundles(model: Path, folder: Path) -> dict[str, Path]:
    """The paths of the four ways; makes a bundle, and one with prepared forms."""
    from toolkit.bundle.compose import bundle_of, variant_of
    from toolkit.bundle.writer import create_bundle
    from toolkit.graph.facts import facts
    from toolkit.providers import registry
    from toolkit.runtime.preparing import prepare_bundle

    known = facts(model)
    paths = {"engine": model, "file": model}
    for way in ("bundle", "prepared"):
        paths[way] = folder / f"{model.parent.name}-{way}.bundle"
        manifest = bundle_of(model, known.inputs, known.outputs, known.metadata)
        create_bundle(paths[way], manifest, [variant_of(model, known.precision, registry.targets(ENGINES))])
    prepare_bundle(paths["prepared"])
    return paths


def measure(paths: Mapping[str, Path], engine: str, rounds: int) -> dict[str, list[dict[str, float]]]:
    """``rounds`` openings of each way, in turns that begin with another one each time; one before them is dropped."""
    samples: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in (*WAYS[number % 4 :], *WAYS[: number % 4]):
            sample = opened(way, engine, paths[way])
            samples[way] += [sample] if number else []
    answers = [sample["answer"] for found in samples.values() for sample in found]
    if max(answers) - min(answers) > 1e-4 * max(answers):
        raise SystemExit(f"the answers differ: {min(answers)} to {max(answers)}")
    return samples


def rows(model: str, engine: str, samples: Mapping[str, Sequence[Mapping[str, float]]]) -> Iterator[dict[str, object]]:
    plain = {
        key: statistics.median(sample[key] for sample in samples["engine"]) for key in ("open", "first", "process")
    }
    for way, found in samples.items():
        own = {key: statistics.median(sample[key] for sample in found) for key in (*plain, "import")}
        # Paired by round, so that drift of the machine hits both.
        ratios = [one["first"] / other["first"] for one, other in zip(found, samples["engine"], strict=True)]
        yield {
            "model": model,
            "engine": engine,
            "way": way,
            **{f"{key}_ms": round(value / 1e6, 2) for key, value in own.items()},
            "first_ratio": round(statistics.median(ratios), 3),
            "process_ratio": round(own["process"] / plain["process"], 3),
            "added_ms": round((own["import"] + own["open"] - plain["open"]) / 1e6, 2),
        }


def table(found: Sequence[Mapping[str, object]]) -> str:
    head = ("open", "first", "ratio", "process", "ratio", "added")
    lines = [" ".join([f"{'model':13} {'engine':8} {'way':9}", *(f"{name:>7}" for name in head)])]
    for row in found:
        lines.append(
            f"{row['model']:13} {row['engine']:8} {row['way']:9} {row['open_ms']:7} {row['first_ms']:7} "
            f"{row['first_ratio']:7} {row['process_ms']:7} {row['process_ratio']:7} {row['added_ms']:7}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TOOLKIT_CACHE"] = str(Path(folder) / "cache")
        for model in asked.models:
            paths = bundles(model.resolve(), Path(folder))
            for engine in asked.engine or ENGINES:
                found += rows(model.resolve().parent.name, engine, measure(paths, engine, asked.rounds))
                print(table(found[-len(WAYS) :]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
