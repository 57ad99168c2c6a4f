"""Calibration beside ONNX Runtime's: seconds and peak memory, a process per run, the contenders taking turns.

    python benchmarks/calibration.py MODEL.onnx [-o result.json] [--rounds 3]
    python benchmarks/calibration.py RESNET50.onnx --large [-o result.json]

What is timed starts at the file and ends at a range per tensor, imports excluded; memory is that of the whole process.
With ``--large``, ONNX Runtime's percentile calibrator gets 8 GB of address space and this toolkit 2 GB of resident
memory, on 128 samples.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from toolkit.errors import one_line
from toolkit.profiler.clock import now_ns
from toolkit.profiler.memory import peak_memory_bytes
from toolkit.report.columns import columns, note
from toolkit.tensors import Feeds, TensorSpec, complete_dims, example_inputs

GB = 1 << 30
PEER_LIMIT_BYTES, OWN_LIMIT_BYTES = 8 * GB, 2 * GB
LARGE_SAMPLES = 128
BINS = 2048
TIMEOUT_S = 1800
OUT_OF_MEMORY = "out of memory"


class Case(NamedTuple):
    """One run: whose calibrator, which method, over how many samples."""

    who: str
    method: str
    samples: int
    limit_bytes: int = 0

    @property
    def name(self) -> str:
        return f"{self.who} {self.method}"


class Run(msgspec.Struct, frozen=True):
    """What one run took. ``failure`` is "" where it ended well, else the last line of what it said."""

    who: str
    method: str
    samples: int
    seconds: float
    peak_bytes: int
    failure: str = ""


class Limit(msgspec.Struct, frozen=True):
    """One condition of issue 3, and whether it held."""

    what: str
    ratio: float
    at_most: float

    @property
    def holds(self) -> bool:
        return self.ratio <= self.at_most


class Result(msgspec.Struct, frozen=True):
    """Everything that was run; ``limits`` are ratios of medians."""

    model: str
    runs: tuple[Run, ...]
    limits: tuple[Limit, ...]
    schema_version: int = 1


# one run, in a process of its own


def samples(inputs: Sequence[TensorSpec], count: int) -> Iterator[Feeds]:
    """One at a time, made when asked for: what holds them all is not counted against the calibrator."""
    sizes = complete_dims(inputs)
    for seed in range(count):
        yield example_inputs(inputs, sizes, seed=seed)


def run_own(model: Path, method: str, count: int) -> Callable[[], Any]:
    from toolkit.data import from_iterable
    from toolkit.graph.facts import facts
    from toolkit.graph.files import load_model
    from toolkit.quantizer.calibration.collect import Origin, calibrate
    from toolkit.quantizer.calibration.observers import observed_range
    from toolkit.quantizer.preparing import prepare

    def work() -> dict[str, tuple[float, float]]:
        known = facts(model)
        # The feeds are what the model reads: preprocessing that its file may name is not part of the comparison.
        data = from_iterable(lambda: samples(known.inputs, count), inputs=known.inputs)
        prepared = prepare(load_model(model), opset=13, where=model).model
        record = calibrate(prepared, data, Origin(model.name, ""))
        seen = {name: record.distribution(name) for name in record.tensors}
        return {name: observed_range(found, method, symmetric=False) for name, found in seen.items() if found}

    return work


def run_peer(model: Path, method: str, count: int) -> Callable[[], Any]:
    import onnxruntime.quantization as quantization
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    from toolkit.graph.facts import facts

    methods = quantization.CalibrationMethod
    chosen = {"minmax": methods.MinMax, "percentile": methods.Percentile, "entropy": methods.Entropy}[method]
    # What quantize_static passes on where nothing else is asked for; entropy has 128 bins there, too few to compare.
    operators = list({*QLinearOpsRegistry, *QDQRegistry})
    options = {"num_bins": BINS} if method == "entropy" else {}

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left = samples(facts(model).inputs, count)

        def get_next(self) -> Feeds | None:
            return next(self._left, None)

    def work() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            augmented = str(Path(folder) / "augmented.onnx")
            calibrator = create_calibrator(
                str(model), operators, augmented_model_path=augmented, calibrate_method=chosen, extra_options=options
            )
            calibrator.collect_data(Reader())
            return calibrator.compute_data()

    return work


WHO: dict[str, Callable[[Path, str, int], Callable[[], Any]]] = {"toolkit": run_own, "onnxruntime": run_peer}


def work_in_here(model: Path, case: Case) -> Run:
    """Run ``case`` in this process."""
    work = WHO[case.who](model, case.method, case.samples)
    if case.limit_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (case.limit_bytes, case.limit_bytes))
    start = now_ns()
    failure = ""
    try:
        work()
    except Exception as exc:
        if not _out_of_memory(exc):
            raise
        failure = one_line(f"{OUT_OF_MEMORY}: {type(exc).__name__}: {exc}", 240)
    return Run(case.who, case.method, case.samples, (now_ns() - start) / 1e9, peak_memory_bytes(), failure)


def _out_of_memory(exc: Exception) -> bool:
    """Python's own error, or ONNX Runtime's for what its C++ could not allocate."""
    return isinstance(exc, MemoryError) or any(word in str(exc).lower() for word in ("bad_alloc", "failed to allocate"))


def run(model: Path, case: Case) -> Run:
    """Run ``case`` in a process of its own."""
    command = [sys.executable, __file__, str(model), "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Run)
    except (IndexError, msgspec.DecodeError):
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
        return Run(case.who, case.method, case.samples, 0.0, 0, f"exit {done.returncode}: {lines[-1][:200]}")


# all runs, and what they mean


def usual_cases(with_entropy: bool) -> list[Case]:
    own = [Case("toolkit", method, count) for method in ("percentile", "entropy") for count in (16, 32, 256)]
    peers = [Case("onnxruntime", method, 32) for method in ("minmax", "percentile")]
    slow = [Case("onnxruntime", "entropy", 32)] if with_entropy else []
    return [Case("toolkit", "minmax", 32), *own, *peers, *slow]


def large_cases() -> list[Case]:
    return [
        *(Case("toolkit", method, LARGE_SAMPLES) for method in ("percentile", "entropy")),
        Case("onnxruntime", "percentile", LARGE_SAMPLES, PEER_LIMIT_BYTES),
    ]


def usual_limits(runs: Sequence[Run]) -> tuple[Limit, ...]:
    """The conditions that these runs can speak about."""

    def of(field: str, who: str, method: str, count: int) -> float:
        key = (who, method, count)
        return statistics.median(getattr(run, field) for run in runs if (run.who, run.method, run.samples) == key)

    def ratio(field: str, own: tuple[str, int], other: tuple[str, str, int]) -> float:
        return of(field, "toolkit", *own) / of(field, *other)

    grown = [
        Limit(f"memory, {method}: 256 samples against 16",
              ratio("peak_bytes", (method, 256), ("toolkit", method, 16)), 1.1)
        for method in ("percentile", "entropy")
    ]  # fmt: skip
    peer = "onnxruntime"
    slow = [
        Limit("time, entropy at 2048 bins against onnxruntime's",
              ratio("seconds", ("entropy", 32), (peer, "entropy", 32)), 1 / 5)
    ] if any((run.who, run.method) == (peer, "entropy") for run in runs) else []  # fmt: skip
    return (
        *grown,
        Limit("memory, percentile against onnxruntime's percentile",
              ratio("peak_bytes", ("percentile", 32), (peer, "percentile", 32)), 1 / 3),
        Limit("time, percentile against onnxruntime's min-max",
              ratio("seconds", ("percentile", 32), (peer, "minmax", 32)), 1.3),
        Limit("time, min-max against onnxruntime's min-max",
              ratio("seconds", ("minmax", 32), (peer, "minmax", 32)), 1.0),
        *slow,
    )  # fmt: skip


def large_limits(runs: Sequence[Run]) -> tuple[Limit, ...]:
    """Ours against 2 GB; for the peer to need more than 8, it has to have failed for memory within them."""
    own = max(run.peak_bytes for run in runs if run.who == "toolkit")
    survived = [run for run in runs if run.who == "onnxruntime" and not run.failure.startswith(OUT_OF_MEMORY)]
    return (
        Limit("toolkit's peak against 2 GB", own / OWN_LIMIT_BYTES, 1.0),
        Limit("onnxruntime runs that 8 GB are enough for", float(len(survived)), 0.0),
    )


def table(result: Result) -> str:
    """For the terminal: medians per case, then the limits."""
    cases: dict[tuple[str, str, int], list[Run]] = {}
    for item in result.runs:
        cases.setdefault((item.who, item.method, item.samples), []).append(item)
    rows: list[tuple[str, ...]] = [("calibrator", "samples", "seconds", "peak MB")]
    for (who, method, count), runs in cases.items():
        seconds = statistics.median(item.seconds for item in runs)
        peak = statistics.median(item.peak_bytes for item in runs) / 1e6
        rows.append((f"{who} {method}", str(count), f"{seconds:.2f}", f"{peak:.0f}"))
    limits: list[tuple[str, ...]] = [("limit", "ratio", "at most", "")]
    limits += [
        (item.what, f"{item.ratio:.2f}", f"{item.at_most:.2f}", "" if item.holds else "MISSED")
        for item in result.limits
    ]
    failed = [
        line for item in result.runs if item.failure for line in note(f"{item.who} {item.method}: {item.failure}")
    ]
    return "\n".join([result.model, "", *columns(rows, (1, 2, 3)), *failed, "", *columns(limits, (1, 2))])


def measured(model: Path, rounds: int, *, large: bool) -> Result:
    """All runs, round by round; the peer's entropy, which takes minutes, in the first alone."""
    runs = []
    for number in range(1 if large else rounds):
        for case in large_cases() if large else usual_cases(with_entropy=number == 0):
            print(f"round {number + 1}: {case.name}, {case.samples} samples", file=sys.stderr)
            runs.append(run(model, case))
    return Result(model.name, tuple(runs), large_limits(runs) if large else usual_limits(runs))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="write everything as JSON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        print(msgspec.json.encode(work_in_here(options.model, Case(*options.case))).decode())
        return 0
    result = measured(options.model, options.rounds, large=options.large)
    print(table(result))
    if options.output:
        options.output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    return 0 if all(limit.holds for limit in result.limits) else 1


if __name__ == "__main__":
    raise SystemExit(main())
