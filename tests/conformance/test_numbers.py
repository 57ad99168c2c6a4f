"""Every provider answers what numpy answers: any size, any type, however the arrays lie in memory."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.conftest import Open
from tests.conformance.models import DTYPES, LINEAR, PAIR, SCALAR, THROUGH, Case, twice
from toolkit.errors import EngineError, InvalidInput, NotApplicable
from toolkit.providers import registry
from toolkit.providers.base import Available
from toolkit.providers.session import Session
from toolkit.targets import Target
from toolkit.tensors import Array, Feeds

GENERATOR = np.random.default_rng(7)


def rows(count: int, columns: int = 4) -> Array:
    return GENERATOR.standard_normal((count, columns)).astype(np.float32)


def check(session: Session, case: Case, feeds: Feeds) -> None:
    """The session's answer has the right names, shapes, dtypes and numbers."""
    answer, wanted = session(feeds), case.reference(feeds)
    assert list(answer) == list(wanted)
    for name, array in wanted.items():
        assert answer[name].dtype == array.dtype
        assert answer[name].shape == array.shape
        # Four terms are summed: a few ulp of the largest.
        np.testing.assert_allclose(answer[name], array, rtol=1e-5, atol=1e-5)


def test_names_types_and_ranks_are_those_of_the_model(open_case: Open) -> None:
    session = open_case(PAIR)
    for found, wanted in zip((*session.inputs, *session.outputs), (*PAIR.inputs, *PAIR.outputs), strict=True):
        assert (found.name, found.dtype) == (wanted.name, wanted.dtype)
        assert found.shape is not None
        assert [isinstance(dim, str) for dim in found.shape] == [True, True]
    assert open_case(LINEAR).inputs[0].shape[1] == 4  # type: ignore[index]


def test_any_number_of_rows_in_one_session(open_case: Open) -> None:
    session = open_case(LINEAR)
    for count in (1, 5, 2, 33, 1):
        check(session, LINEAR, {"x": rows(count)})


def test_no_rows_at_all(open_case: Open) -> None:
    check(open_case(LINEAR), LINEAR, {"x": rows(0)})


def test_several_inputs_and_outputs(open_case: Open) -> None:
    session = open_case(PAIR)
    for shape in ((2, 3), (4, 1), (2, 3)):
        check(session, PAIR, {"b": rows(*shape), "a": rows(*shape)})


def test_a_scalar(open_case: Open) -> None:
    check(open_case(SCALAR), SCALAR, {"x": np.array(1.5, np.float32)})


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_exact(open_case: Open, dtype: str) -> None:
    case = twice(dtype)
    values = GENERATOR.integers(0, 2 if dtype == "bool" else 100, (3, 2)).astype(dtype)
    session = open_case(case)
    answer = session({"x": values})["y"]
    assert answer.dtype == values.dtype
    np.testing.assert_array_equal(answer, np.concatenate([values, values]))


@pytest.mark.parametrize("dtype", ["bfloat16", "string"])
def test_types_that_numpy_has_no_memory_for_are_exact_or_refused(open_case: Open, dtype: str) -> None:
    case = twice(dtype)
    values = np.array([["0", "1.5"], ["-2", "300"]], object) if dtype == "string" else _bfloat16([[0, 1.5], [-2, 300]])
    try:
        answer = open_case(case)({"x": values})["y"]
    except (EngineError, NotApplicable, InvalidInput) as exc:
        assert "\n" not in str(exc)
    else:
        assert answer.dtype == values.dtype
        np.testing.assert_array_equal(answer, np.concatenate([values, values]))


def _bfloat16(values: list[list[float]]) -> Array:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return np.array(values, ml_dtypes.bfloat16)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other row": lambda array: np.repeat(array, 2, axis=0)[::2],
    "backwards": lambda array: array[::-1, ::-1],
    "transposed": lambda array: np.ascontiguousarray(array.T).T,
    "read-only": lambda array: np.lib.stride_tricks.as_strided(array, writeable=False),
    "broadcast": lambda array: np.broadcast_to(array[:1], array.shape),
    "unaligned": lambda array: _unaligned(array),
}


def _unaligned(array: Array) -> Array:
    buffer = np.empty(array.nbytes + 1, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("layout", LAYOUTS)
def test_however_the_array_lies_in_memory(open_case: Open, layout: str) -> None:
    check(open_case(LINEAR), LINEAR, {"x": LAYOUTS[layout](rows(6))})


def test_outputs_belong_to_the_caller(open_case: Open) -> None:
    session = open_case(LINEAR)
    first_feed, second_feed = rows(3), rows(3)
    first = session({"x": first_feed})["y"]
    kept = first.copy()
    second = session({"x": second_feed})["y"]
    np.testing.assert_array_equal(first, kept)
    assert not np.shares_memory(first, second)
    first[...] = 0
    np.testing.assert_allclose(second, LINEAR.reference({"x": second_feed})["y"], rtol=1e-5, atol=1e-5)


def test_an_output_that_is_an_input_is_a_copy_of_it(open_case: Open) -> None:
    feed = np.arange(5, dtype=np.float32)
    answer = open_case(THROUGH)({"x": feed})
    np.testing.assert_array_equal(answer["y"], feed)
    assert not np.shares_memory(answer["y"], feed)
    answer["y"][...] = -1
    np.testing.assert_array_equal(feed, np.arange(5))


def test_inputs_are_left_alone_and_may_be_reused(open_case: Open) -> None:
    session = open_case(LINEAR)
    feed = rows(2)
    before = feed.copy()
    session({"x": feed})
    np.testing.assert_array_equal(feed, before)
    feed += 1
    check(session, LINEAR, {"x": feed})


def test_outputs_live_longer_than_the_session(open_case: Open) -> None:
    session = open_case(LINEAR)
    feed = rows(2)
    answer = session({"x": feed})["y"]
    session.close()
    np.testing.assert_allclose(answer, LINEAR.reference({"x": feed})["y"], rtol=1e-5, atol=1e-5)


def test_callers_in_several_threads_get_their_own_answers(open_case: Open) -> None:
    session = open_case(LINEAR, threads=1)
    feeds = [rows(1 + index % 4) for index in range(64)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda feed: session({"x": feed})["y"], feeds))
    for feed, answer in zip(feeds, answers, strict=True):
        np.testing.assert_allclose(answer, LINEAR.reference({"x": feed})["y"], rtol=1e-5, atol=1e-5)


def test_a_throughput_target_serves_several_callers(tmp_path: Path) -> None:
    if not isinstance(registry.provider("openvino").probe(), Available):
        pytest.skip("openvino is not available")
    target = Target(name="mine", provider="openvino", mode="throughput", streams=2, threads=2)
    feeds = [rows(1 + index % 4) for index in range(64)]
    with registry.provider("openvino").open(LINEAR.write(tmp_path), target) as session:
        assert "streams 2" in session.execution.notes
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda feed: session({"x": feed})["y"], feeds))
    for feed, answer in zip(feeds, answers, strict=True):
        np.testing.assert_allclose(answer, LINEAR.reference({"x": feed})["y"], rtol=1e-5, atol=1e-5)


def test_async_runs_answer_like_calls(open_case: Open) -> None:
    session = open_case(LINEAR, threads=1)
    feeds = [rows(count) for count in (1, 2, 3, 2, 1)]

    async def all_of_them() -> list[dict[str, Array]]:
        return await asyncio.gather(*(session.run_async({"x": feed}) for feed in feeds))

    for feed, answer in zip(feeds, asyncio.run(all_of_them()), strict=True):
        np.testing.assert_allclose(answer["y"], LINEAR.reference({"x": feed})["y"], rtol=1e-5, atol=1e-5)


def test_the_same_input_gives_the_same_bytes(open_case: Open) -> None:
    session, feed = open_case(LINEAR), rows(9)
    assert session({"x": feed})["y"].tobytes() == session({"x": feed})["y"].tobytes()


def test_warmup_leaves_answers_as_they_were(open_case: Open) -> None:
    session = open_case(LINEAR)
    session.warmup(2)
    check(session, LINEAR, {"x": rows(3)})
