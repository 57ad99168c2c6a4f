"""Every provider proves what ran: which nodes where, in which precision, on how many threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conformance.conftest import Open
from tests.conformance.models import LINEAR, PAIR, quantized_reference, write_compressed, write_quantized
from toolkit.errors import InvalidInput
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.targets import Target
from toolkit.tensors import Array


def test_nodes_version_and_device_are_told(open_case: Open) -> None:
    found = open_case(LINEAR).execution
    assert sum(found.nodes_by_provider.values()) >= 1
    assert set(found.nodes_by_provider) == {found.provider}
    assert found.version[0].isdigit()
    assert found.device


def test_float32_is_executed_in_float32(onnx_provider: str, tmp_path: Path) -> None:
    with registry.provider(onnx_provider).open(LINEAR.write(tmp_path)) as session:
        assert set(session.execution.executed_precision) <= {"float32", "as the file says"}
        assert sum(session.execution.executed_precision.values()) >= 1


def test_a_quantized_file_is_executed_in_int8(onnx_provider: str, tmp_path: Path) -> None:
    path = write_quantized(tmp_path)
    x = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    with registry.provider(onnx_provider).open(path) as session:
        answer = session({"x": x})["y"]
        wanted = quantized_reference(x)
        # One step of the output's scale, where a value lies between two.
        np.testing.assert_allclose(answer, wanted, atol=0.5)
        assert np.mean(answer == wanted) > 0.99
        executed = session.execution.executed_precision
    assert executed.get("int8", 0) + executed.get("as the file says", 0) >= 1, executed


def test_compressed_weights_do_not_round_the_activations(onnx_provider: str, tmp_path: Path) -> None:
    path, weight = write_compressed(tmp_path)
    x = np.random.default_rng(1).standard_normal((4, 512)).astype(np.float32)
    for prepared in (False, True):
        check_product(registry.provider(onnx_provider).open(path, prepared=prepared), x, x @ weight)


def check_product(session: Session, x: Array, wanted: Array) -> None:
    with session:
        # 512 float32 products of values near one: far below what rounding to int8 costs (0.3).
        np.testing.assert_allclose(session({"x": x})["y"], wanted, atol=1e-3)
        assert "int8" not in session.execution.executed_precision


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_honoured(open_case: Open, threads: int) -> None:
    session = open_case(LINEAR, threads=threads)
    session({"x": np.zeros((1, 4), np.float32)})
    assert session.execution.threads == threads


def test_the_proof_takes_inputs_of_the_callers(open_case: Open) -> None:
    session = open_case(PAIR)
    array = np.ones((2, 3), np.float32)
    assert session.prove({"a": array, "b": array}).nodes_by_provider
    with pytest.raises(InvalidInput, match="wrong rank"):
        session.prove({"a": array[0], "b": array})


def test_the_proof_changes_no_answer(open_case: Open) -> None:
    session = open_case(LINEAR)
    feed = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    before = session({"x": feed})["y"]
    assert session.execution is session.execution
    np.testing.assert_array_equal(session({"x": feed})["y"], before)


def test_placement_counts_the_nodes_a_provider_takes(onnx_provider: str, tmp_path: Path) -> None:
    found = registry.provider(onnx_provider).place(LINEAR.write(tmp_path), Target(provider=onnx_provider))
    assert found.taken.get("MatMul") == 1
    assert found.refused == {}


def test_a_prepared_form_answers_the_same(onnx_provider: str, tmp_path: Path) -> None:
    engine, path = registry.provider(onnx_provider), LINEAR.write(tmp_path)
    feed = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
    for _ in range(2):  # made, then found
        with engine.open(path, prepared=True) as session:
            assert [spec.name for spec in session.inputs] == ["x"]
            np.testing.assert_allclose(
                session({"x": feed})["y"], LINEAR.reference({"x": feed})["y"], rtol=1e-5, atol=1e-5
            )
            assert session.execution.nodes_by_provider


def test_the_key_of_a_prepared_form_covers_model_and_target(onnx_provider: str, tmp_path: Path) -> None:
    engine, path = registry.provider(onnx_provider), LINEAR.write(tmp_path)
    other = PAIR.write(tmp_path, "other.onnx")
    one = Target(provider=onnx_provider, threads=1)
    two = Target(provider=onnx_provider, threads=2)
    keys = {engine.prepared_key(model, target) for model in (path, other) for target in (one, two)}
    assert len(keys) == 4
    assert engine.prepared_key(path, one) in keys
