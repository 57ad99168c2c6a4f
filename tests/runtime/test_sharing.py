"""``toolkit.load(batching=…, instances=…)``: what may be shared is, what may not is said, and answers stay the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import toolkit
import toolkit.machine as machine
from tests.conformance.models import LINEAR
from toolkit.bundle.compose import bundle_of, variant_of
from toolkit.bundle.manifest import RowsRecord, decode, encode
from toolkit.bundle.reader import open_bundle
from toolkit.bundle.writer import create_bundle, replace_manifest
from toolkit.cli.main import run as command
from toolkit.errors import InvalidInput, NotApplicable, UsageError
from toolkit.providers.null import NullModel
from toolkit.providers.session import Session
from toolkit.runtime import paying, sharing
from toolkit.runtime.batching import Batching, BatchingEngine
from toolkit.runtime.paying import Curve, batch_curve, throughputs
from toolkit.runtime.records import known_rows, record_rows
from toolkit.targets import Target
from toolkit.tensors import Array, TensorSpec

PROVIDERS = ["cpu", "openvino"]
FIXED = "g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
CROSSED = "g (float[batch,4] x) => (float[batch,4] y) { y = Softmax<axis = 0>(x) }"
UNCOUNTED = "g (float[batch,4] x) => (float[n] y) { f = Flatten<axis = 0>(x) y = Squeeze(f) }"


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"cpu": "onnxruntime"}.get(request.param, request.param))
    return str(request.param)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def written(folder: Path, graph: str) -> Path:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{graph}'), path)
    return path


def embedding(folder: Path) -> Path:
    """ids (batch, len) to states (batch, len, 8) and their mean (batch, 8), as a sentence encoder does."""
    generator = np.random.default_rng(0)
    weights = {"E": (50, 8), "W": (8, 8)}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["E", "ids"], ["words"]),
            helper.make_node("MatMul", ["words", "W"], ["states"]),
            helper.make_node("ReduceMean", ["states"], ["mean"], axes=[1], keepdims=0),
        ],
        "embedding",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "len"])],
        [
            helper.make_tensor_value_info("states", onnx.TensorProto.FLOAT, ["batch", "len", 8]),
            helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["batch", 8]),
        ],
        [
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    path = folder / "embedding.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def same(one: Mapping[str, Array], other: Mapping[str, Array]) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"batching": Batching(max_size=8)},
        {"instances": 2},
        {"batching": Batching(), "instances": 2},
        {"batching": Batching(max_delay_s=0.001)},
    ],
    ids=["batches", "instances", "both", "delay"],
)
def test_32_threads_with_changing_shapes_get_their_own_answers(
    tmp_path: Path, provider: str, settings: dict[str, object]
) -> None:
    path = embedding(tmp_path)
    failures: list[BaseException] = []
    generator = np.random.default_rng(1)
    feeds = [{"ids": generator.integers(0, 50, (1 + index % 3, 1 + index % 5)).astype(np.int64)} for index in range(60)]
    with toolkit.load(path, provider) as plain:
        expected = [plain(item) for item in feeds]

    def calling(session: Session, start: int) -> None:
        try:
            for step in range(40):
                index = (start * 7 + step) % len(feeds)
                same(session(feeds[index]), expected[index])
                if step % 10 == 0:
                    with pytest.raises(InvalidInput):
                        session({"ids": feeds[index]["ids"].astype(np.int32)})
        except BaseException as exc:  # noqa: BLE001 - shown by the main thread
            failures.append(exc)

    with toolkit.load(path, provider, **settings) as session:  # type: ignore[arg-type]
        threads = [threading.Thread(target=calling, args=(session, index)) for index in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]


def test_a_neighbour_with_nan_or_a_bad_id_costs_nobody_else_anything(tmp_path: Path, provider: str) -> None:
    with toolkit.load(LINEAR.write(tmp_path), provider, batching=Batching()) as session:
        rows = [np.full((1, 4), value, np.float32) for value in (1, np.nan, 2, np.inf, 3)]

        async def calls() -> list[dict[str, Array]]:
            return await asyncio.gather(*(session.run_async({"x": array}) for array in rows * 20))

        for array, outputs in zip(rows * 20, asyncio.run(calls()), strict=True):
            with np.errstate(invalid="ignore"):
                expected = LINEAR.reference({"x": array})["y"]
            np.testing.assert_array_equal(outputs["y"], expected)


def test_out_of_range_ids_fail_alone(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with toolkit.load(embedding(tmp_path), "cpu", batching=Batching()) as session:
        fed = [{"ids": np.array([[value, value]], np.int64)} for value in (1, 77, 3, -99, 5)]

        async def calls() -> list[object]:
            return await asyncio.gather(*(session.run_async(feeds) for feeds in fed), return_exceptions=True)

        outcomes = asyncio.run(calls())
        assert [isinstance(outcome, dict) for outcome in outcomes] == [True, False, True, False, True]
        assert "indices element out of data bounds" in str(outcomes[1])


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (FIXED, "its batch size is fixed"),
        (CROSSED, "changes with"),
        (UNCOUNTED, "has not one axis that counts rows"),
    ],
    ids=["fixed batch", "rows depend on others", "output without the batch"],
)
def test_what_cannot_share_batches_is_refused_when_asked_for(tmp_path: Path, graph: str, reason: str) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(NotApplicable, match="calls cannot share batches; got ") as caught:
        toolkit.load(written(tmp_path, graph), "cpu", batching=Batching())
    assert reason in str(caught.value)


def test_auto_leaves_off_what_does_not_pay_or_may_not_be_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    with toolkit.load(LINEAR.write(tmp_path), "cpu", batching="auto") as session:
        assert not isinstance(session.engine, BatchingEngine)  # a model of microseconds
        assert any("nothing is shared" in note or "batching is off" in note for note in session.execution.notes)
    monkeypatch.setattr(sharing, "SHORTEST_S", 0.0)
    for graph, reason in ((FIXED, "batching is off: its batch size is fixed"), (CROSSED, "batching is off")):
        with toolkit.load(written(tmp_path, graph), "cpu", batching="auto") as session:
            assert not isinstance(session.engine, BatchingEngine)
            assert any(reason in note for note in session.execution.notes)


def slow_null(folder: Path) -> Path:
    """5 ms a run, whatever the batch: what a batch pays most for."""
    specs = {name: (TensorSpec(name, "float32", ("batch", 2)),) for name in "xy"}
    path = folder / "slow.json"
    path.write_bytes(msgspec.json.encode(NullModel(specs["x"], specs["y"], delay_ns=5_000_000)))
    return path


def shared_null(folder: Path) -> Session:
    """The null engine sleeps side by side with itself, which no core does; a lock makes it an engine of one core."""
    session = toolkit.load(slow_null(folder), "null")
    lock, run = threading.Lock(), session.engine.run

    def locked(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with lock:
            return run(feeds)

    session.engine.run = locked  # type: ignore[method-assign]
    return session


def test_auto_shares_batches_where_that_pays(tmp_path: Path) -> None:
    with shared_null(tmp_path) as session:
        sharing.share(session, "auto", 1, lambda count: None)
        assert isinstance(session.engine, BatchingEngine)
        assert any("batching, up to 32 rows of the size measured" in note for note in session.execution.notes)
        assert session({"x": np.zeros((3, 2), np.float32)})["y"].shape == (3, 2)


def test_auto_stays_off_when_the_race_is_not_won(tmp_path: Path) -> None:
    """Slept, not computed, so calls side by side are as good as a batch of as many."""
    with toolkit.load(slow_null(tmp_path), "null") as session:
        sharing.share(session, "auto", 1, lambda count: None)
        note = next(note for note in session.execution.notes if "concurrent callers" in note)
        assert isinstance(session.engine, BatchingEngine) == note.startswith("batching")


def test_room_shrinks_with_the_size_of_a_row(tmp_path: Path) -> None:
    with toolkit.load(slow_null(tmp_path), "null", batching=Batching()) as session:
        assert isinstance(session.engine, BatchingEngine)
        curve = Curve({1: 0.010, 2: 0.011, 4: 0.015, 8: 0.024, 16: 0.048, 32: 0.096})
        room = sharing._room(session.engine._layout, {"x": np.zeros((1, 2), np.float32)}, curve)
        assert [room(elements) for elements in (1, 2, 4, 8, 9, 10_000)] == [64, 32, 16, 8, 1, 1]


def test_the_curve_knows_what_is_enough_and_what_is_too_much() -> None:
    curve = Curve({1: 0.010, 2: 0.011, 4: 0.014, 8: 0.024, 16: 0.047, 32: 0.120})
    assert (curve.enough, curve.most) == (8, 16)
    assert curve.gain == pytest.approx(0.010 / 0.003)
    assert Curve({1: 0.010, 2: 0.022, 4: 0.046}).most == 1


def test_the_curve_stops_early_on_short_and_on_slow_models(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"x": np.zeros((1, 2), np.float32), "rate": np.zeros(())}
    now = 0.0
    monkeypatch.setattr(paying, "time", SimpleNamespace(perf_counter=lambda: now))

    def sizes(seconds: Callable[[int], float]) -> list[int]:
        def run(feeds: Mapping[str, Array]) -> None:
            nonlocal now
            now += seconds(len(feeds["x"]))

        return list(batch_curve(run, row, {"x": 0}, 32, budget_s=0.5).seconds)

    assert sizes(lambda rows: 10e-6) == [1]  # over before a thread wakes up
    assert sizes(lambda rows: 1e-3) == [1, 2, 4, 8, 16, 32]
    assert sizes(lambda rows: 0.2 * rows) == [1, 2]  # slow, and no quicker in a batch
    assert sizes(lambda rows: 0.2) == [1, 2, 4, 8]  # slow, but quicker in a batch


def test_the_race_counts_calls_of_all_callers() -> None:
    wait = threading.Event().wait
    found = throughputs({"": lambda _: wait(0.01), "slow": lambda _: wait(0.05)}, {}, 0.01)
    assert found[""] > found["slow"] > 0


def test_instances_share_the_cores(tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    with toolkit.load(LINEAR.write(tmp_path), provider, instances=2) as session:
        assert isinstance(session.engine, BatchingEngine)
        assert len(session.engine.engines) == 2
        if provider == "cpu":
            assert session.target.threads == 2
            assert session.engine.engines[0] is not session.engine.engines[1]
        else:
            assert session.target.streams == 2
        assert any("instances: 2, as asked" in note for note in session.execution.notes)
        np.testing.assert_array_equal(session({"x": np.ones((1, 4), np.float32)})["y"], [[2.75, 1, 6.5]])


def test_instances_of_one_thread_are_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    with toolkit.load(LINEAR.write(tmp_path), "cpu", instances=2) as session:
        assert isinstance(session.engine, BatchingEngine)
        assert session.target.threads == 1
        assert session.engine.engines[0] is session.engine.engines[1]


def test_instances_auto_measures_and_says_so(tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SHORTEST_S", 0.0)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    with toolkit.load(LINEAR.write(tmp_path), provider, instances="auto", batching="auto") as session:
        assert any("calls per second of concurrent callers" in note for note in session.execution.notes)
        np.testing.assert_array_equal(session({"x": np.ones((1, 4), np.float32)})["y"], [[2.75, 1, 6.5]])


def test_instances_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="null does not run instances side by side"):
        toolkit.load(slow_null(tmp_path), "null", instances=2)


@pytest.mark.parametrize("wishes", [{"batching": "on"}, {"instances": 0}, {"instances": "all"}, {"instances": True}])
def test_wishes_are_checked_before_anything_is_opened(wishes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no such"):
        toolkit.load("nowhere.onnx", "cpu", **wishes)  # type: ignore[arg-type]


def bundled(folder: Path) -> Path:
    model, path = LINEAR.write(folder), folder / "linear.bundle"
    source = variant_of(model, "float32", (Target(name="cpu", provider="cpu"),))
    create_bundle(path, bundle_of(model, LINEAR.inputs, LINEAR.outputs, {}), [source])
    return path


def test_a_bundle_records_its_rows_and_the_record_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    path = bundled(tmp_path)
    made = record_rows(open_bundle(path), "float32-cpu")
    (record,) = made.manifest.variants[0].rows_independent
    assert (record.independent, record.inputs, record.outputs) == (True, {"x": 0}, {"y": 0})
    assert decode(encode(made.manifest), "there") == made.manifest
    monkeypatch.setattr(sharing, "prove_rows", lambda *_: pytest.fail("tried again"))
    with toolkit.load(path, "cpu", batching=Batching()) as session:
        assert session({"x": np.ones((2, 4), np.float32)})["y"].shape == (2, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64},
        {"version": "0.1"},
        {"provider": "openvino"},
        {"inputs": {"x": 2}},
        {"outputs": {}},
        {"outputs": {"y": 0, "z": 0}},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_record_of_something_else_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    pytest.importorskip("onnxruntime")
    made = record_rows(open_bundle(bundled(tmp_path)), "float32-cpu")
    variant = made.manifest.variants[0]
    with toolkit.load(made.path, "cpu") as session:
        assert known_rows(variant, session) is not None
        record = msgspec.structs.replace(variant.rows_independent[0], **change)
        assert known_rows(msgspec.structs.replace(variant, rows_independent=(record,)), session) is None
        rounded = msgspec.structs.replace(session.target, engine_options={"mlas.qnbit.force_fp32": True})
        session.target = rounded
        assert known_rows(variant, session) is None


def test_a_record_that_says_no_is_believed(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = record_rows(open_bundle(bundled(tmp_path)), "float32-cpu")
    variant = made.manifest.variants[0]
    no: RowsRecord = msgspec.structs.replace(variant.rows_independent[0], independent=False, reason="so it was found")
    changed = msgspec.structs.replace(variant, rows_independent=(no,))
    replace_manifest(made, msgspec.structs.replace(made.manifest, variants=(changed,)))
    with pytest.raises(NotApplicable, match="calls cannot share batches; got so it was found"):
        toolkit.load(made.path, "cpu", batching=Batching())


def test_the_command_that_makes_a_bundle_records_rows(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = LINEAR.write(tmp_path)
    assert command(["bundle", "create", str(model), "-o", str(tmp_path / "b"), "--target", "cpu"]) == 0
    (variant,) = open_bundle(tmp_path / "b").manifest.variants
    assert [record.independent for record in variant.rows_independent] == [True]
