"""I/O binding and graph capture, on the CPU's own memory: shapes change, tensors are reused, answers stay right."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.models import LINEAR, PAIR, twice
from toolkit.errors import EngineError
from toolkit.providers.onnxruntime_device import BoundEngine, GraphEngine
from toolkit.providers.onnxruntime_engine import OnnxRuntimeEngine
from toolkit.targets import Target
from toolkit.tensors import Array

pytest.importorskip("onnxruntime")
CHAIN = [("CPUExecutionProvider", {})]
TARGET = Target(name="cpu", provider="cpu", threads=1)


def rows(count: int) -> Array:
    return np.random.default_rng(count).standard_normal((count, 4)).astype(np.float32)


@pytest.fixture(params=["bound", "graphs"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BoundEngine | GraphEngine]:
    inner = OnnxRuntimeEngine(LINEAR.write(tmp_path), TARGET, CHAIN)
    found = BoundEngine(inner, "cpu", 0) if request.param == "bound" else GraphEngine(inner, "cpu", 0, limit=8)
    yield found
    found.close()


def check(engine: BoundEngine | GraphEngine, feed: Array) -> Array:
    answer = engine.run({"x": feed})
    assert list(answer) == ["y"]
    np.testing.assert_allclose(answer["y"], LINEAR.reference({"x": feed})["y"], rtol=1e-5, atol=1e-5)
    return answer["y"]


def test_new_values_in_known_and_new_shapes(engine: BoundEngine | GraphEngine) -> None:
    for count in (1, 1, 3, 1, 3, 0, 5):
        check(engine, rows(count) + count)


def test_answers_are_the_callers(engine: BoundEngine | GraphEngine) -> None:
    first = check(engine, rows(2))
    kept = first.copy()
    check(engine, rows(2) + 1)
    np.testing.assert_array_equal(first, kept)


def test_arrays_that_are_not_contiguous(engine: BoundEngine | GraphEngine) -> None:
    check(engine, np.asfortranarray(rows(6)))
    check(engine, rows(6)[::-2])


def test_one_caller_at_a_time(engine: BoundEngine | GraphEngine) -> None:
    feeds = [rows(1 + index % 3) + index for index in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for feed, answer in zip(feeds, pool.map(lambda item: engine.run({"x": item})["y"], feeds), strict=True):
            np.testing.assert_allclose(answer, LINEAR.reference({"x": feed})["y"], rtol=1e-5, atol=1e-5)


def test_the_proof_is_the_sessions(engine: BoundEngine | GraphEngine) -> None:
    check(engine, rows(1))
    found = engine.prove({"x": rows(1)})
    assert found.nodes_by_provider == {"CPUExecutionProvider": 1}
    assert ("CUDA graphs on" in " ".join(found.notes)) == isinstance(engine, GraphEngine)


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", "uint8"])
def test_types(tmp_path: Path, dtype: str) -> None:
    engine = BoundEngine(OnnxRuntimeEngine(twice(dtype).write(tmp_path), TARGET, CHAIN), "cpu", 0)
    values = np.arange(6).reshape(3, 2).astype(dtype)
    np.testing.assert_array_equal(engine.run({"x": values})["y"], np.concatenate([values, values]))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    engine = GraphEngine(OnnxRuntimeEngine(PAIR.write(tmp_path), TARGET, CHAIN), "cpu", 0, limit=2)
    for shape in ((2, 3), (1, 1), (2, 3)):
        feeds = {"b": np.full(shape, 2, np.float32), "a": np.full(shape, 5, np.float32)}
        answer = engine.run(feeds)
        assert list(answer) == ["total", "gap"]
        np.testing.assert_array_equal(answer["total"], np.full(shape, 7))
        np.testing.assert_array_equal(answer["gap"], np.full(shape, 3))


def test_one_shape_too_many_for_graphs_is_a_clear_error(tmp_path: Path) -> None:
    engine = GraphEngine(OnnxRuntimeEngine(LINEAR.write(tmp_path), TARGET, CHAIN), "cpu", 0, limit=2)
    for count in (1, 2, 1, 2):
        check(engine, rows(count))
    with pytest.raises(EngineError, match=r"no CUDA graph is left for these input shapes; got \[3, 4\]"):
        engine.run({"x": rows(3)})
    check(engine, rows(2))
