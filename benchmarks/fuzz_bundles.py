"""Open N broken bundles, half of them with right hashes around a broken inside; only documented errors may come of it.

    python benchmarks/fuzz_bundles.py --cases 100000 [--first 0] [--workers 2] [--json OUT.json]

A case is a number (tests/bundle/mutations.py), so ``--first 4711 --cases 1`` repeats one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.bundle.fuzzing import Sandbox, Tally, Worker
from tests.bundle.mutations import case
from tests.bundle.seeds import seed_bundles


def run(numbers: range, seeds: dict[str, bytes], tally: Tally, lock: threading.Lock, folder: Path) -> None:
    sandbox, worker = Sandbox(folder), Worker()
    for number in numbers:
        what, content = case(number, seeds)
        sandbox.put(content)
        provider = "openvino" if number % 4 == 3 else "cpu"
        kind, detail = worker.judge(sandbox.path, provider, sandbox.cache)
        escaped = sandbox.escaped()
        with lock:
            tally.add(number, f"{what} on {provider}", kind, detail)
            if escaped:
                tally.wrong.append((number, what, f"escape: {escaped}"))
    worker.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    os.environ["TOOLKIT_CACHE"] = str(folder / "seeds")
    started, tally, lock = time.perf_counter(), Tally(), threading.Lock()
    try:
        seeds = seed_bundles()
        numbers = range(asked.first, asked.first + asked.cases)
        threads = [
            threading.Thread(target=run, args=(numbers[at :: asked.workers], seeds, tally, lock, folder / str(at)))
            for at in range(asked.workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "cases": asked.cases,
        "seconds": round(time.perf_counter() - started, 1),
        "outcomes": dict(tally.counts),
        "errors": dict(tally.errors),
        "endless": sorted(tally.endless),
        "wrong": sorted(tally.wrong),
    }
    print(json.dumps({**result, "wrong": len(tally.wrong)}, indent=2))
    for number, what, detail in sorted(tally.wrong)[:50]:
        print(f"case {number}, {what}: {detail.strip().splitlines()[-1]}")
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(3 if tally.wrong else 0)


if __name__ == "__main__":
    main()
