"""This toolkit's quantizer against its peers: one run, one table, every figure from the same interleaved measuring.

    python benchmarks/quantization.py                                  # everything that is here
    python benchmarks/quantization.py --quick -o quick.json
    python benchmarks/quantization.py --models resnet20,vit_s16,bert_6layer -o result.json

Peers: the untouched float model; ONNX Runtime's quantize_static (min-max with unsigned and with signed activations,
percentile, entropy; Q/DQ, weights per channel, after quant_pre_process) and quantize_dynamic; NNCF on ONNX and on
OpenVINO IR. NNCF is no dependency of this project: ``pip install -c constraints.txt nncf``; without it its rows say so.

How to read it: "time" is what the quantizer took without imports (this toolkit's includes optimizing, checking and
racing its candidates; "static" rows are calibration, lowering and checking alone), "peak" the most memory that its
process ever held, imports included. Accuracy is on samples that nobody calibrated or chose on; without labels it is
the SNR of the worst output against float. "speed" is float's time over the variant's, higher is better; ``!`` marks a
variant outside the budget, which counts for nobody. The two fastest peers within the budget, float, and this
toolkit are then raced again ("again"), so that no figure is the luck of having been picked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quantization_files import Built, build, child
from quantization_models import CASES, QUICK, Case
from quantization_table import FLOAT, OURS, Block, Row, block_lines, summary_lines

from toolkit.providers import registry

PROVIDERS = ("cpu", "openvino")  # target names; OpenVINO's computes float files in float32
SNR_DB = 20.0
TOO_SLOW = 4.0
"""Times as slow as float: such a file is not raced, since it would eat the time of all others."""
PROCESSES = 3
"""That winners are raced in again."""
CONTENDERS = 2
"""The fastest peers of the first race that are raced again; the faster one then is who this toolkit is held against."""
_EXACT = 1e-9

# name: (providers it is run on, what the job says).
STATIC = {
    f"static {observer}": (("cpu",), {"kind": "ours", "method": "static", "observer": observer, "choose": None})
    for observer in ("minmax", "percentile", "entropy")
}
PEERS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "ORT minmax": (PROVIDERS, {"kind": "ort_static", "calibrator": "MinMax"}),
    "ORT minmax s8": (PROVIDERS, {"kind": "ort_static", "calibrator": "MinMax", "signed": True}),
    "ORT percentile": (PROVIDERS, {"kind": "ort_static", "calibrator": "Percentile"}),
    "ORT entropy": (PROVIDERS, {"kind": "ort_static", "calibrator": "Entropy"}),
    "ORT dynamic": (PROVIDERS, {"kind": "ort_dynamic"}),
    "NNCF ONNX": (PROVIDERS, {"kind": "nncf_onnx"}),
    "NNCF IR": (("openvino",), {"kind": "nncf_ir"}),
}


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help=f"names, by commas: {', '.join(case.name for case in CASES)}")
    parser.add_argument("--quick", action="store_true", help="a few small models, short races")
    parser.add_argument("--variants", default="", help=f"only these, by commas: {', '.join([*STATIC, *PEERS])}")
    parser.add_argument("--providers", default=",".join(PROVIDERS))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "toolkit-benchmark-cache")
    parser.add_argument(
        "--material", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "material",
        help="folder of real models; those that need it are skipped without it",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, help="write everything as JSON")
    parser.add_argument("--budget", type=float, default=0.0, help="seconds per race; default 20, with --quick 3")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one quantizer")
    parser.add_argument("--memory-limit", type=float, default=8192.0, help="MB for one process")
    return parser.parse_args(arguments)


def chosen_cases(given: argparse.Namespace) -> list[Case]:
    known = {case.name: case for case in CASES}
    names = given.models.split(",") if given.models else QUICK if given.quick else tuple(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"unknown model {unknown[0]!r}; known: {', '.join(known)}")
    return [known[name] for name in names]


def missing(case: Case, material: Path) -> str:
    """Why ``case`` cannot be built here; "" where it can."""
    absent = [name for name in case.needs if not (material / name).is_dir()]
    return f"no {', '.join(absent)} in the material folder (--material)" if absent else ""


class Bench:
    """One case: its variants made, judged and raced."""

    def __init__(self, built: Built, given: argparse.Namespace, folder: Path) -> None:
        self.built, self.given, self.folder = built, given, folder
        self.budget_s = given.budget or (3.0 if given.quick else 20.0)
        wanted = given.variants.split(",") if given.variants else [*PEERS, *STATIC]
        self.others = {name: item for name, item in {**PEERS, **STATIC}.items() if name in wanted}
        self.rows: dict[str, Row] = {}  # quantizers' rows by variant, "toolkit" once per provider

    def run(self, providers: Sequence[str]) -> Iterator[Block]:
        self.rows[FLOAT] = {"name": FLOAT, "path": str(self.built.float), "size_mb": _size_mb(self.built.float)}
        for name, (targets, job) in self.others.items():
            if set(targets) & set(providers):
                self._make(name, name, job, providers[0])
        for provider in providers:
            self._make(f"{OURS} for {provider}", OURS, {"kind": "ours"}, provider)
        for provider in providers:
            yield self._block(provider)

    # making

    def _make(self, key: str, name: str, extra: dict[str, Any], provider: str) -> None:
        """Run one quantizer in its own process; the row says what came of it."""
        say(f"{self.built.case.name}: {key}")
        if extra["kind"].startswith("nncf") and importlib.util.find_spec("nncf") is None:
            self.rows[key] = {"name": name, "error": "nncf is not installed"}
            return
        folder = self.folder / key.replace(" ", "-")
        output = folder / ("model.xml" if extra["kind"] == "nncf_ir" else "model.onnx")
        job = {
            "model": str(self.built.float), "output": str(output), "folder": str(folder), "target": provider,
            "calibration": str(self.built.paths["calibration"]), "choose": str(self.built.paths["choose"]),
            "feeds": str(self.built.feeds), "transformer": self.built.case.transformer,
            "max_drop": self.built.case.drop, **extra,
        }  # fmt: skip
        text, reason = self._child("quantization_peers.py", job, folder)
        found: Row = json.loads(text) if text else {}
        if reason:
            found["error"] = reason
        elif not found.get("error"):
            found |= {"path": str(output), "size_mb": _size_mb(output)}
        self.rows[key] = {"name": name, **found}

    def _child(self, script: str, job: dict[str, Any], folder: Path) -> tuple[str, str]:
        return child(script, job, folder, timeout_s=self.given.timeout, limit_mb=self.given.memory_limit)

    # judging and racing

    def _block(self, provider: str) -> Block:
        """Everything about this model on one provider."""
        rows = self._rows_on(provider)
        self._judge(rows, provider)
        baseline = rows[0].get("quality")
        for row in rows:
            row["within"] = _within(row, baseline, self.built)
        raceable = [row for row in rows if not row.get("error") and row["name"] not in STATIC]
        for row in raceable:
            slow = row["call_ms"] / rows[0]["call_ms"]
            if slow > TOO_SLOW:
                row |= {"unraced": f"about {1 / slow:.2f}, not raced", "p50_ms": row["call_ms"]}
        self._race([row for row in raceable if not row.get("unraced")], provider)
        ours = next(row for row in rows if row["name"] == OURS)
        return {
            "model": self.built.case.name, "provider": provider, "labelled": self.built.labelled,
            "transformer": self.built.case.transformer, "rule": _rule(self.built), "rows": rows,
            "again": self._again(rows, provider), "counts": self.built.counts,
            "ours_failed": bool(ours.get("error")), "ours_outside": not ours.get("error") and not ours["within"],
        }  # fmt: skip

    def _rows_on(self, provider: str) -> list[Row]:
        names = [FLOAT, f"{OURS} for {provider}"]
        names += [name for name, (targets, _) in self.others.items() if provider in targets]
        return [dict(self.rows[name]) for name in names]

    def _job(self, provider: str, rows: Sequence[Row], **extra: Any) -> dict[str, Any]:
        return {
            "target": provider, "variants": {row["name"]: row["path"] for row in rows},
            "float": str(self.built.float), "test": str(self.built.paths["test"]),
            "feeds": str(self.built.race_feeds), "labelled": self.built.labelled, **extra,
        }  # fmt: skip

    def _judge(self, rows: Sequence[Row], provider: str) -> None:
        """Quality of each; a file that takes its process down is marked, and the rest judged in a new one."""
        waiting = [row for row in rows if not row.get("error")]
        while waiting:
            say(f"{self.built.case.name}: judging {len(waiting)} files on {provider}")
            job = self._job(provider, waiting, kind="judge")
            text, reason = self._child("quantization_race.py", job, self.folder / f"judge-{provider}")
            found = [json.loads(line) for line in text.splitlines()]
            for item in found:
                next(row for row in waiting if row["name"] == item["name"]).update(item)
            if reason and (not found or "started" not in found[-1]):
                raise RuntimeError(f"judging failed: {reason}")
            for row in waiting:
                if row.pop("started", False) and not ("quality" in row or row.get("error")):
                    row["error"] = reason
            waiting = [row for row in waiting if "quality" not in row and not row.get("error")]

    def _race(self, rows: Sequence[Row], provider: str) -> None:
        """Fill in speed over float and the median latency."""
        say(f"{self.built.case.name}: racing {len(rows)} files on {provider}")
        found = self._raced(rows, provider, FLOAT, self.budget_s * max(1, len(rows) / 4))
        for row in rows:
            row["p50_ms"] = found["p50_ms"].get(row["name"])
            if row["name"] == FLOAT:
                row["speed"] = 1.0
            elif row["name"] in found["ratios"]:
                row["speed"], row["interval"] = _faster(found["ratios"][row["name"]])

    def _raced(self, rows: Sequence[Row], provider: str, baseline: str, budget_s: float) -> dict[str, Any]:
        job = self._job(provider, rows, kind="race", baseline=baseline, budget_s=budget_s)
        text, reason = self._child("quantization_race.py", job, self.folder / f"race-{provider}")
        if reason:
            say(f"{self.built.case.name}: the race on {provider} failed: {reason}")
            return {"p50_ms": {}, "ratios": {}}
        found: dict[str, Any] = json.loads(text)
        return found

    def _again(self, rows: Sequence[Row], provider: str) -> dict[str, Any] | None:
        """Race this toolkit's file, float and the best peers once more; float stands in where ours failed."""
        named = {row["name"]: row for row in rows}
        peers = [row for row in rows if row["name"] in (FLOAT, *PEERS) and row.get("speed") and row["within"]]
        if not peers:
            return None
        best = sorted(peers, key=lambda row: row["speed"], reverse=True)[:CONTENDERS]
        ours = named[OURS]
        stand_in = {**named[FLOAT], "name": OURS} if ours.get("error") or not ours.get("speed") else ours
        others = [named[FLOAT], *(row for row in best if row["name"] != FLOAT)]
        say(f"{self.built.case.name}: racing {', '.join(row['name'] for row in best)} again on {provider}")
        races = [
            self._raced([stand_in, *others], provider, OURS, self.budget_s / 2)["ratios"] for _ in range(PROCESSES)
        ]
        ratios = _median_ratios(races)
        if FLOAT not in ratios:
            return None
        peer = min((row["name"] for row in best), key=lambda name: ratios[name]["ratio"])
        over_float, over_peer = ratios[FLOAT], ratios[peer]
        return {
            "peer": peer, "vs_float": over_float["ratio"], "vs_float_interval": over_float["interval"],
            "vs_peer": over_peer["ratio"], "vs_peer_interval": over_peer["interval"],
        }  # fmt: skip


def _median_ratios(races: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over processes of each ratio and of the ends of its interval: where memory lands is a process's luck."""
    found: dict[str, Any] = {}
    for name in {name for race in races for name in race}:
        own = [race[name] for race in races if race.get(name, {}).get("interval")]
        if own:
            ends = zip(*(item["interval"] for item in own), strict=True)
            found[name] = {
                "ratio": statistics.median(item["ratio"] for item in own),
                "interval": [statistics.median(end) for end in ends],
            }
    return found


def _faster(found: dict[str, Any]) -> tuple[float, list[float] | None]:
    """A ratio of times turned into one of speeds."""
    interval = found["interval"]
    return 1 / found["ratio"], [1 / interval[1], 1 / interval[0]] if interval else None


def _within(row: Row, baseline: float | None, built: Built) -> bool:
    if row["name"] == FLOAT:
        return True
    if row.get("error") or baseline is None:
        return False
    if built.labelled:
        return bool(row["quality"] >= baseline - built.case.drop - _EXACT)
    return bool(row["quality"] >= SNR_DB)


def _rule(built: Built) -> str:
    samples = f"{built.counts['test']} test samples, {built.counts['calibration']} to calibrate on"
    return f"{f'at most -{built.case.drop:g} points' if built.labelled else f'at least {SNR_DB:.0f} dB'}; {samples}"


def _size_mb(path: Path) -> float:
    """Of a model and the files beside it that hold its weights."""
    files = {path, path.with_suffix(".bin"), path.with_name(f"{path.name}.data")}
    return sum(item.stat().st_size for item in files if item.is_file()) / 1e6


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(arguments)
    providers = tuple(given.providers.split(","))
    for name in providers:
        registry.provider(registry.target(name).provider).require(registry.target(name))
    blocks: list[Block] = []
    for case in chosen_cases(given):
        if reason := missing(case, given.material):
            print(f"{case.name}: skipped, {reason}\n", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="toolkit-benchmark-") as folder:
            built = build(case, given.cache.resolve(), given.material.resolve())
            for block in Bench(built, given, Path(folder)).run(providers):
                blocks.append(block)
                print("\n".join(block_lines(block)), flush=True)
                if given.output:
                    given.output.write_text(json.dumps({"schema_version": 1, "blocks": blocks}, indent=1))
    print("\n".join(summary_lines(blocks)))


if __name__ == "__main__":
    main()
