"""A few hundred broken bundles in CI; the long run is benchmarks/fuzz_bundles.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.fuzzing import Sandbox, Tally, Worker
from tests.bundle.mutations import case, mended, pack, unpack
from tests.bundle.seeds import seed_bundles
from toolkit.providers import registry
from toolkit.providers.base import Available

CASES = 240
# Cases that once came out wrong: a member without a name, operator sets of version 2 to the 31, a negative pad,
# nodes without the inputs that they need, a size of 400 digits.
KNOWN: tuple[int, ...] = (1104, 1447, 4199, 21779, 37639, 47197, 49191)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return seed_bundles()


def provider_of(number: int) -> str:
    wanted = "openvino" if number % 4 == 3 else "cpu"
    return wanted if isinstance(registry.provider(wanted).probe(), Available) else "cpu"


def test_broken_bundles_are_refused_in_one_line_and_nothing_else_happens(
    seeds: dict[str, bytes], tmp_path: Path
) -> None:
    sandbox, worker, tally = Sandbox(tmp_path / "sandbox"), Worker(), Tally()
    try:
        for number in (*range(CASES), *KNOWN):
            what, content = case(number, seeds)
            sandbox.put(content)
            kind, detail = worker.judge(sandbox.path, provider_of(number), sandbox.cache)
            tally.add(number, what, kind, detail)
            if escaped := sandbox.escaped():
                tally.wrong.append((number, what, escaped))
    finally:
        worker.close()
    assert tally.wrong == []
    # The inside was reached: some models still ran, some were refused by an engine, the others by our own checks.
    assert tally.counts["ran"] >= CASES // 20
    assert {"InvalidBundle", "InvalidModel"} <= set(tally.errors)
    assert {"EngineError", "NotApplicable"} & set(tally.errors)


def test_the_seeds_themselves_run(seeds: dict[str, bytes], tmp_path: Path) -> None:
    sandbox, worker = Sandbox(tmp_path / "sandbox"), Worker()
    try:
        for name, content in seeds.items():
            for number in (0,) if name == "branching" else (0, 3):  # OpenVINO converts no functions in branches
                sandbox.put(pack(mended(unpack(content))))
                assert worker.judge(sandbox.path, provider_of(number), sandbox.cache) == ("ran", ""), name
                assert sandbox.escaped() == ""
    finally:
        worker.close()


def test_a_case_is_the_same_each_time(seeds: dict[str, bytes]) -> None:
    assert all(case(number, seeds) == case(number, seeds) for number in range(30))


def test_the_judge_sees_a_crash_and_an_escape(tmp_path: Path) -> None:
    sandbox, worker = Sandbox(tmp_path / "sandbox"), Worker()
    worker._start = lambda: __import__("subprocess").Popen(  # type: ignore[method-assign]
        ["sh", "-c", "read line; kill -SEGV $$"], stdin=-1, stdout=-1
    )
    sandbox.put(b"x")
    assert worker.judge(sandbox.path, "cpu", sandbox.cache) == ("crash", "exit code -11")
    (sandbox.outside / "evil").write_text("x")
    assert "evil appeared" in sandbox.escaped()
    worker.close()
