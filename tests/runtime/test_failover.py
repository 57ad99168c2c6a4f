"""Engines that fail in the middle of a run: every call is answered once, rightly, or gets the documented error."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import toolkit
from toolkit.errors import EngineError, InvalidInput, UsageError
from toolkit.providers.session import Engine, Execution, Session
from toolkit.runtime.failover import Failover, FallbackWarning
from toolkit.tensors import Array, Feeds

DOUBLE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) { y = Add(x, x) }"""


class Failing:
    """An engine that runs until told to fail; ``fails`` says on which feeds."""

    def __init__(self, engine: Engine, fails: Callable[[Feeds], bool]) -> None:
        self._engine, self._fails = engine, fails
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, feeds: Feeds) -> dict[str, Array]:
        if self._fails(feeds):
            raise RuntimeError("CUDA failure 719: unspecified launch failure")
        return self._engine.run(feeds)

    def prove(self, feeds: Feeds) -> Execution:
        return self._engine.prove(feeds)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    path = tmp_path / "double.onnx"
    onnx.save(onnx.parser.parse_model(DOUBLE), path)
    return path


def failing(path: Path, fails: Callable[[Feeds], bool], fallback: tuple[str, ...] = ("cpu",)) -> Session:
    session = toolkit.load(path, "openvino", fallback=fallback)
    session._engine = Failing(session.engine, fails)
    return session


def rows(number: int) -> Array:
    return np.full((2, 4), number, np.float32)


def test_a_dead_engine_is_replaced_and_that_is_said(path: Path) -> None:
    dead = threading.Event()
    with failing(path, lambda feeds: dead.is_set()) as session:
        assert session({"x": rows(1)})["y"][0, 0] == 2
        dead.set()
        with pytest.warns(FallbackWarning, match=r"openvino failed \(.*719.*\); cpu takes its place"):
            assert session({"x": rows(2)})["y"][0, 0] == 4
        assert (session.provider, session.target.name) == ("cpu", "cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert session({"x": rows(3)})["y"][0, 0] == 6
        assert session.execution.provider == "CPUExecutionProvider"
        assert any("takes its place" in note for note in session.execution.notes)


def test_an_engine_that_fails_on_one_input_stays(path: Path) -> None:
    with failing(path, lambda feeds: bool((feeds["x"] == 13).any())) as session:
        with pytest.warns(FallbackWarning, match="cpu answered this call"):
            assert session({"x": rows(13)})["y"][0, 0] == 26
        assert session.provider == "openvino"
        assert session({"x": rows(1)})["y"][0, 0] == 2


def test_closing_a_session_closes_the_fallbacks_that_were_opened_for_it(path: Path) -> None:
    opened: list[Session] = []

    def open_cpu() -> Session:
        opened.append(toolkit.load(path, "cpu"))
        return opened[-1]

    with failing(path, lambda feeds: bool((feeds["x"] == 13).any())) as session:
        session.rescue = Failover(session, [("cpu", open_cpu)])
        with pytest.warns(FallbackWarning):
            session({"x": rows(13)})
        opened[0]({"x": rows(1)})
    with pytest.raises(UsageError, match="this session is closed"):
        opened[0]({"x": rows(1)})


def test_without_fallback_each_call_gets_the_documented_error(path: Path) -> None:
    with failing(path, lambda feeds: True, fallback=()) as session:
        for _ in range(3):
            with pytest.raises(EngineError, match="719"):
                session({"x": rows(1)})


def test_when_nothing_answers_the_first_error_is_the_one_that_is_raised(path: Path) -> None:
    with failing(path, lambda feeds: True) as session:
        session.rescue = Failover(session, [("gone", lambda: toolkit.load(path.with_name("gone.onnx"), "cpu"))])
        with pytest.raises(EngineError, match="719"):
            session({"x": rows(1)})
        assert any("fallback gone could not be opened" in note for note in session.notes)


def test_what_the_caller_does_wrong_is_no_failure(path: Path) -> None:
    with failing(path, lambda feeds: False) as session, warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidInput, match="wrong rank"):
            session({"x": np.zeros(4, np.float32)})
        assert session.provider == "openvino"


def test_every_accepted_call_of_many_threads_is_answered_once_and_rightly(path: Path) -> None:
    calls, threads = 300, 8
    runs = threading.Semaphore(calls)  # the engine dies after so many runs, whoever makes them
    answers: list[list[float]] = [[] for _ in range(threads)]
    with failing(path, lambda feeds: not runs.acquire(blocking=False)) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)

        def work(number: int) -> None:
            for index in range(calls):
                answers[number].append(float(session({"x": rows(number * calls + index)})["y"][1, 3]))

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert session.provider == "cpu"
    wanted = [[2.0 * (number * calls + index) for index in range(calls)] for number in range(threads)]
    assert answers == wanted
