"""Every provider refuses what does not fit in one clear line, with the exit code the error tree gives it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.conftest import Open
from tests.conformance.models import LINEAR, PAIR, Case, write_external, write_unsupported
from toolkit.errors import (
    EngineError,
    FileProblem,
    InvalidInput,
    InvalidModel,
    InvalidTarget,
    NotApplicable,
    ProviderUnavailable,
    ToolkitError,
    UsageError,
)
from toolkit.providers import registry
from toolkit.providers.base import Unavailable
from toolkit.providers.session import Session
from toolkit.targets import Target

GOOD = np.zeros((2, 4), np.float32)

# What is fed to LINEAR, and what the line has to say.
WRONG_FEEDS = {
    "no input at all": ({}, "an input is missing", "x:float32["),
    "another name": ({"X": GOOD}, "no such input", "'x' (did you mean that?)"),
    "one too many": ({"x": GOOD, "extra": GOOD}, "no such input", "'extra'"),
    "float64": ({"x": GOOD.astype(np.float64)}, "wrong dtype", "expected float32"),
    "integers": ({"x": GOOD.astype(np.int64)}, "wrong dtype", "array.astype('float32')"),
    "rank 1": ({"x": GOOD[0]}, "wrong rank", "shape [4]"),
    "rank 3": ({"x": GOOD[None]}, "wrong rank", "shape [1, 2, 4]"),
    "five columns": ({"x": np.zeros((2, 5), np.float32)}, "wrong size in axis 1", "shape [2, 5]"),
    "a list": ({"x": [[0.0] * 4]}, "not a numpy array", "got list"),
}


def line_of(raised: pytest.ExceptionInfo[ToolkitError]) -> str:
    """The message, checked to be one readable line."""
    text = str(raised.value)
    assert "\n" not in text
    assert 10 < len(text) <= 600
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("mistake", WRONG_FEEDS)
def test_wrong_inputs(open_case: Open, mistake: str) -> None:
    feeds, *expected = WRONG_FEEDS[mistake]
    session = open_case(LINEAR)
    with pytest.raises(InvalidInput) as raised:
        session(feeds)  # type: ignore[arg-type]
    text = line_of(raised)
    assert raised.value.exit_code == 2
    for part in expected:
        assert part in text
    session({"x": GOOD})  # it is still usable


def test_sizes_that_the_engine_finds_out_about(open_case: Open) -> None:
    session = open_case(PAIR)
    with pytest.raises((InvalidInput, EngineError)) as raised:
        session({"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 4), np.float32)})
    line_of(raised)
    session({"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 3), np.float32)})


def test_use_after_close(open_case: Open) -> None:
    session = open_case(LINEAR)
    session.close()
    session.close()
    for use in (lambda: session({"x": GOOD}), lambda: session.warmup(1), session.prove, lambda: run_async(session)):
        with pytest.raises(UsageError, match="this session is closed") as raised:
            use()
        line_of(raised)
    assert "closed" in repr(session)


def run_async(session: Session) -> None:
    asyncio.run(session.run_async({"x": GOOD}))


def test_a_session_closes_with_its_block(open_case: Open) -> None:
    with open_case(LINEAR) as session:
        session({"x": GOOD})
    with pytest.raises(UsageError, match="closed"):
        session({"x": GOOD})


def unknown_option(provider: str) -> str:
    return registry.provider(provider).known_options()[0][:-1] + "_"


def test_an_unknown_option_is_refused_and_the_nearest_named(provider: str) -> None:
    target = Target(name="mine", provider=provider, engine_options={unknown_option(provider): 1})
    with pytest.raises(InvalidTarget, match="has no such option") as raised:
        registry.provider(provider).check_target(target)
    assert registry.provider(provider).known_options()[0] in line_of(raised)


def test_a_rounding_the_engine_does_not_do_is_refused(provider: str) -> None:
    engine = registry.provider(provider)
    foreign = next(name for name in ("tf32", "bfloat16") if name not in engine.inference_precisions)
    target = Target(provider=provider, inference_precision=foreign)  # type: ignore[arg-type]
    with pytest.raises(InvalidTarget, match=f"cannot compute in {foreign}") as raised:
        engine.check_target(target)
    line_of(raised)


def test_a_device_that_is_not_there(provider: str, tmp_path: Path) -> None:
    engine = registry.provider(provider)
    answer = engine.probe("NOWHERE")
    assert isinstance(answer, Unavailable)
    assert "NOWHERE" in answer.reason
    assert answer.remedy
    with pytest.raises(ProviderUnavailable, match="NOWHERE") as raised:
        engine.open(LINEAR.write(tmp_path), Target(provider=provider, device="NOWHERE"))
    line_of(raised)
    assert raised.value.exit_code == 1


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def scramble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = os.urandom(len(content) // 2)
    path.write_bytes(content)


PICKLE = b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02e."
BROKEN: dict[str, tuple[Callable[[Path], object], type[ToolkitError]]] = {
    "truncated": (truncate, InvalidModel),
    "scrambled": (scramble, InvalidModel),
    "text": (lambda path: path.write_text("This is not a model.\n" * 20), InvalidModel),
    "json": (lambda path: path.write_text('{"inputs": []}'), InvalidModel),
    "a pickle": (lambda path: path.write_bytes(PICKLE), InvalidModel),
    "empty": (lambda path: path.write_bytes(b""), FileProblem),
    "missing": (Path.unlink, FileProblem),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), FileProblem),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_files_that_are_no_models(onnx_provider: str, damage: str, tmp_path: Path) -> None:
    path = LINEAR.write(tmp_path)
    harm, error = BROKEN[damage]
    harm(path)
    with pytest.raises(error) as raised:
        registry.provider(onnx_provider).open(path)
    assert str(path) in line_of(raised)
    assert raised.value.exit_code == 2


def test_an_operator_that_no_engine_has(onnx_provider: str, tmp_path: Path) -> None:
    with pytest.raises((NotApplicable, EngineError)) as raised:
        registry.provider(onnx_provider).open(write_unsupported(tmp_path))
    assert "Frobnicate" in line_of(raised)
    assert raised.value.exit_code == 1


def test_a_model_from_before_opset_7_runs_or_says_how_to_upgrade_it(onnx_provider: str, tmp_path: Path) -> None:
    case = Case(
        "old (float[n,4] x, float[4,3] w) => (float[n,3] y) { y = Gemm(x, w, b) }", (), (), lambda _: {}, None,
        {"b": np.zeros(3, np.float32)},
    )  # fmt: skip
    path = case.write(tmp_path, opset=6)
    try:
        registry.provider(onnx_provider).open(path).close()
    except InvalidModel as exc:
        assert "toolkit optimize model.onnx -o NEW.onnx --opset 17" in str(exc)
        assert "\n" not in str(exc)


def test_missing_external_data(onnx_provider: str, tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises((FileProblem, InvalidModel)) as raised:
        registry.provider(onnx_provider).open(path)
    assert "weights.bin" in line_of(raised)
    assert raised.value.exit_code == 2


def test_external_data_that_is_there(onnx_provider: str, tmp_path: Path) -> None:
    with registry.provider(onnx_provider).open(write_external(tmp_path)) as session:
        np.testing.assert_allclose(session({"x": GOOD})["y"], LINEAR.reference({"x": GOOD})["y"])


def test_a_failed_opening_prints_nothing(onnx_provider: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = LINEAR.write(tmp_path)
    truncate(path)
    with pytest.raises(InvalidModel):
        registry.provider(onnx_provider).open(path)
    with pytest.raises(ToolkitError):
        registry.provider(onnx_provider).open(write_unsupported(tmp_path))
    assert capfd.readouterr() == ("", "")
