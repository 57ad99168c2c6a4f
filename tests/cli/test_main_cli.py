"""The command line as a whole: exit codes, one line on stderr, nothing on stdout, tracebacks only when asked for."""

from __future__ import annotations

import pytest

from toolkit.cli import main
from toolkit.errors import ParityError, ProviderUnavailable, UsageError


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main.run(list(args))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("args", [["exprt"], ["run"], ["run", "m.onnx", "--inptu", "x"], ["--nope"]])
def test_misuse_is_exit_2_and_one_line(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    code, out, err = outcome(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'export' (did you mean that?)" in outcome(capsys, "exprt")[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("bad", where="a", got="b", expected="c", next_step="d"), 2),
        (ProviderUnavailable("gone"), 1),
        (ParityError("differs"), 3),
        (RuntimeError("a\nbug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_failure_is_one_line_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(main.toolkit, "main", fail)
    found, out, err = outcome(capsys, "targets")
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        outcome(capsys, "run", "missing.onnx", "--input", "missing.npz", "-o", "out.npz", "--debug")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(capsys, "--help")
    assert code == 0
    for name in main._COMMANDS:
        assert f"  {name} " in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", list(main._COMMANDS))
def test_every_command_has_help_within_80_columns(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, err = outcome(capsys, name, "--help")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
