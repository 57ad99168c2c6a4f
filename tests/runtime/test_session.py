"""What a session takes and gives: arrays of every make, threads, forks, reused outputs, tensors of other libraries."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import toolkit
from toolkit.errors import InvalidInput, UsageError
from toolkit.providers.session import Session
from toolkit.tensors import Array

PROVIDERS = ["cpu", "openvino"]
DOUBLE = """<ir_version: 8, opset_import: ["" : 17]>
g (TYPE[N,4] x) => (TYPE[N,4] y) { y = Add(x, x) }"""


@pytest.fixture(params=PROVIDERS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Session]:
    """``opened("float")``: a session that doubles its input."""
    pytest.importorskip({"cpu": "onnxruntime"}.get(request.param, request.param))

    def make(dtype: str = "float", **settings: bool) -> Session:
        path = tmp_path / f"{dtype}.onnx"
        onnx.save(onnx.parser.parse_model(DOUBLE.replace("TYPE", dtype)), path)
        return toolkit.load(path, request.param, **settings)

    return make


def rows(count: int, dtype: str = "float32") -> Array:
    return (np.random.default_rng(count).standard_normal((count, 4)) * 8).astype(dtype)


def read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "view",
    [
        lambda array: np.asfortranarray(array),
        lambda array: array[::-1],
        lambda array: array[:, ::-1],
        lambda array: np.concatenate([array, array], 1)[:, ::2],
        lambda array: np.broadcast_to(array[:1], array.shape),
        read_only,
        lambda array: array.astype(array.dtype.newbyteorder()),
        lambda array: array[:0],
    ],
    ids=["fortran", "backwards", "columns", "strided", "broadcast", "read-only", "byte-order", "empty"],
)
@pytest.mark.parametrize("count", [6, 30_000], ids=["small", "large"])
def test_arrays_of_every_make(view: Callable[[Array], Array], count: int, opened: Callable[..., Session]) -> None:
    with opened() as session:
        for array in (rows(count), view(rows(count)), rows(count)):
            np.testing.assert_array_equal(session({"x": array})["y"], np.asarray(array, np.float32) * 2)


@pytest.mark.parametrize("dtype", ["float16", "double", "int64"])
def test_types(dtype: str, opened: Callable[..., Session]) -> None:
    name = {"double": "float64"}.get(dtype, dtype)
    with opened(dtype) as session:
        array = np.rint(rows(3)).astype(name)  # exact in each type: OpenVINO computes float64 in float32
        found = session({"x": array})["y"]
        assert found.dtype == name
        np.testing.assert_array_equal(found, array * 2)


def test_bfloat16_where_the_engine_has_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    path = tmp_path / "bf16.onnx"
    onnx.save(onnx.parser.parse_model(DOUBLE.replace("TYPE", "bfloat16")), path)
    with toolkit.load(path, "openvino") as session:
        found = session({"x": rows(3).astype(ml_dtypes.bfloat16)})["y"]
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), rows(3).astype(ml_dtypes.bfloat16).astype(np.float32) * 2)


def test_answers_are_the_callers(opened: Callable[..., Session]) -> None:
    with opened() as session:
        first = session({"x": rows(5)})["y"]
        session({"x": rows(5) + 1})
        np.testing.assert_array_equal(first, rows(5) * 2)
        first[:] = 0
        np.testing.assert_array_equal(session({"x": rows(5)})["y"], rows(5) * 2)


def test_the_array_that_was_fed_may_change_or_go_afterwards(opened: Callable[..., Session]) -> None:
    with opened() as session:
        for count in (3, 30_000):
            array = rows(count)
            session({"x": array})
            array[:] = 7
            np.testing.assert_array_equal(session({"x": array})["y"], np.full((count, 4), 14, np.float32))
            del array
            np.testing.assert_array_equal(session({"x": rows(count)})["y"], rows(count) * 2)


def test_outputs_are_reused_when_asked_for_as_long_as_shapes_stay(opened: Callable[..., Session]) -> None:
    with opened(reuse_outputs=True) as session:
        first = session({"x": rows(5)})["y"]
        second = session({"x": rows(5) + 1})["y"]
        assert second is first
        np.testing.assert_array_equal(first, (rows(5) + 1) * 2)
        other = session({"x": rows(3)})["y"]
        assert other is not first
        np.testing.assert_array_equal(other, rows(3) * 2)


def test_threads_have_reused_outputs_of_their_own(opened: Callable[..., Session]) -> None:
    with opened(reuse_outputs=True) as session:
        in_threads(8, 200, lambda number: check(session, number % 3 + 1, number))


def test_many_threads_share_a_session_while_shapes_change(opened: Callable[..., Session]) -> None:
    with opened() as session:
        in_threads(8, 200, lambda number: check(session, number % 5, number))


def check(session: Session, count: int, shift: int) -> None:
    array = rows(count) + np.float32(shift)
    np.testing.assert_array_equal(session({"x": array})["y"], array * 2)


def in_threads(threads: int, calls: int, call: Callable[[int], None]) -> None:
    """Every thread makes all calls; the first failure is raised here."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for index in range(calls):
                call(number * calls + index)
        except BaseException as exc:  # noqa: BLE001 - raised in the caller's thread
            failures.append(exc)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]


def test_torch_tensors_go_in_without_a_copy_being_asked_for(opened: Callable[..., Session]) -> None:
    torch = pytest.importorskip("torch")
    with opened() as session:
        tensor = torch.from_numpy(rows(4))
        np.testing.assert_array_equal(session({"x": tensor})["y"], rows(4) * 2)
        np.testing.assert_array_equal(session({"x": tensor.t().contiguous().t()})["y"], rows(4) * 2)


def test_a_tensor_that_numpy_cannot_read_is_named(opened: Callable[..., Session]) -> None:
    torch = pytest.importorskip("torch")
    with (
        opened() as session,
        pytest.raises(InvalidInput, match=r"input 'x': this tensor cannot be read.*require gradient"),
    ):
        session({"x": torch.zeros(1, 4, requires_grad=True)})


class OnDevice:
    """What a tensor on a GPU looks like from outside."""

    dtype, shape = "torch.float32", (2, 4)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1

    def __dlpack__(self) -> object:
        raise AssertionError("its memory cannot be read here")


def test_a_tensor_on_a_device_is_refused_where_the_provider_cannot_read_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "double.onnx"
    onnx.save(onnx.parser.parse_model(DOUBLE.replace("TYPE", "float")), path)
    with toolkit.load(path, "openvino") as session:
        with pytest.raises(InvalidInput, match=r"input 'x': openvino cannot read this tensor; got on cuda:1"):
            session({"x": OnDevice()})
        with pytest.raises(UsageError, match="tensors of openvino cannot be shared"):
            session.run_on_device({"x": rows(2)})


def test_outputs_that_stay_with_the_provider_are_shared_through_dlpack(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "double.onnx"
    onnx.save(onnx.parser.parse_model(DOUBLE.replace("TYPE", "float")), path)
    with toolkit.load(path, "cpu") as session:
        value = session.run_on_device({"x": torch.from_numpy(rows(2))})["y"]
        again = session.run_on_device({"x": value})["y"]
        np.testing.assert_array_equal(torch.from_dlpack(again).numpy(), rows(2) * 4)
        np.testing.assert_array_equal(session({"x": value})["y"], rows(2) * 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_session_that_a_fork_copied_says_so_and_does_not_hang(opened: Callable[..., Session]) -> None:
    with opened() as session:
        session({"x": rows(2)})
        child = os.fork()
        if child == 0:
            code = 1
            try:
                session({"x": rows(2)})
            except UsageError as exc:
                code = 0 if "before the process forked" in str(exc) else 2
            session.close()
            os._exit(code)
        assert wait_for(child) == 0
        np.testing.assert_array_equal(session({"x": rows(2)})["y"], rows(2) * 2)


def wait_for(child: int, limit_s: float = 20.0) -> int | None:
    """The exit code of ``child``; None, and its end, where it hangs."""
    done = threading.Event()
    codes: list[int] = []

    def wait() -> None:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    if not done.wait(limit_s):
        os.kill(child, 9)
        return None
    return codes[0]
