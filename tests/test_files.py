"""Files are there or the reason is one line; outputs are whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from toolkit.errors import FileProblem
from toolkit.files import atomic_folder, cache_folder, existing_file, sha256, writable_output, write_atomic


def test_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    assert existing_file(str(path)) == path


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(FileProblem) as raised:
        existing_file(tmp_path / "modle.onnx", "model file")
    assert str(raised.value) == f"{tmp_path}/modle.onnx: no such model file; did you mean {tmp_path}/model.onnx?"


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="there is no directory"):
        existing_file(tmp_path / "nowhere" / "model.onnx")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Path.mkdir, "this is a directory where a file should be"),
        (Path.touch, "the file is empty"),
        (os.mkfifo, "a device or a pipe where a file should be"),
    ],
)
def test_what_is_no_file(tmp_path: Path, make: object, expected: str) -> None:
    path = tmp_path / "thing"
    make(path)  # type: ignore[operator]
    with pytest.raises(FileProblem, match=expected):
        existing_file(path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileProblem, match="no such file"):
        existing_file(tmp_path / name)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileProblem, match="no such file"):
        existing_file(tmp_path / "file" / "model.onnx")


def test_outputs_that_cannot_be_written_are_found_first(tmp_path: Path) -> None:
    assert writable_output(tmp_path / "out.onnx") == tmp_path / "out.onnx"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileProblem, match="the output is a directory"):
        writable_output(tmp_path)
    with pytest.raises(FileProblem, match=f"mkdir -p {tmp_path}/deep"):
        writable_output(tmp_path / "deep" / "out.onnx")
    with pytest.raises(FileProblem, match="cannot be written"):
        writable_output("/proc/out.onnx")


def test_a_write_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_atomic(path, "grüße")
    assert path.read_bytes() == "grüße".encode()
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "ours", b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")}
    assert len(modes) == 1


def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_folder(path) as scratch:
        (scratch / "out.onnx").write_bytes(b"half")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_files_arrive_together_the_named_one_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(self.name), replace(self, target))[1])
    with atomic_folder(tmp_path / "a.onnx") as scratch:
        (scratch / "a.onnx").write_bytes(b"graph")
        (scratch / "z.data").write_bytes(b"weights")
        assert not (tmp_path / "a.onnx").exists()
    assert moved == ["z.data", "a.onnx"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.onnx", "z.data"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(FileProblem, match=r"out\.onnx: the output cannot be written; got No space left on device"),
        atomic_folder(tmp_path / "out.onnx"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_input_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "out.onnx"):
        (tmp_path / "missing").read_bytes()


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", "/mine")
    assert cache_folder("tensorrt") == Path("/mine/tensorrt")
    monkeypatch.delenv("TOOLKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder("tensorrt") == Path("/xdg/toolkit/tensorrt")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("tensorrt") == Path.home() / ".cache" / "toolkit" / "tensorrt"
