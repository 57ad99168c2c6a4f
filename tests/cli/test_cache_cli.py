"""``toolkit cache``: what is there, what for, whether it still holds; and pruning removes that and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

import toolkit
from tests.bundle.seeds import make_bundle
from toolkit.bundle.archive import pack
from toolkit.cli.main import run
from toolkit.files import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache with an unpacked bundle, a prepared form of a bare file, and stamps; returns the bare file."""
    make_bundle("image", tmp_path)
    pack(tmp_path / "image.bundle", tmp_path / "packed.bundle")
    toolkit.load(tmp_path / "packed.bundle", "cpu").close()
    toolkit.load(tmp_path / "image.onnx", "cpu", prepared=True).close()
    return tmp_path / "image.onnx"


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run(["cache", *arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    entries: list[dict[str, object]] = found.get("entries", found.get("removed"))
    return entries


def kinds(entries: list[dict[str, object]]) -> list[str]:
    return sorted(str(entry["kind"]) for entry in entries)


def test_an_empty_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache"]) == 0
    assert capsys.readouterr().out == "nothing is cached\n"


def test_what_is_there_and_what_for(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys)
    assert kinds(entries) == ["bundle", "prepared", "stamp"]
    assert all(entry["valid"] for entry in entries)
    by_kind = {entry["kind"]: entry for entry in entries}
    assert by_kind["bundle"]["what"] == "image, unpacked"
    assert by_kind["prepared"]["what"] == f"{filled} on cpu"
    assert all(int(str(entry["size_bytes"])) > 0 for entry in entries)
    assert run(["cache"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "valid" in out


def test_a_form_is_stale_when_model_or_machine_changed(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reason() -> object:
        return next(entry["reason"] for entry in listed(capsys) if entry["kind"] == "prepared")

    assert reason() == ""
    content = filled.read_bytes()
    filled.write_bytes(content + content)  # protobuf messages merge when they are joined
    assert reason() == "the model was changed"
    filled.unlink()
    assert reason() == "the model is gone"
    monkeypatch.setattr("toolkit.machine.cpu_model", lambda: "another")
    assert "here it is another" in str(reason())


def test_pruning_removes_what_is_stale(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "prune") == []
    filled.unlink()
    unfinished = cache_folder("bundles") / ".unpack.x"
    unfinished.mkdir()
    old = time.time() - 7200
    os.utime(unfinished, (old, old))
    assert kinds(listed(capsys, "prune")) == ["bundle", "prepared", "stamp"]
    assert kinds(listed(capsys)) == ["bundle", "stamp"]


def test_pruning_by_age_and_by_size(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle,) = cache_folder("bundles").iterdir()
    old = time.time() - 40 * 86400
    os.utime(bundle, (old, old))
    assert kinds(listed(capsys, "prune", "--older-than", "30d")) == ["bundle"]
    assert "prepared" in kinds(listed(capsys, "prune", "--max-size", "1B"))
    assert listed(capsys) == []


def test_a_bundle_that_is_opened_again_is_not_old(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle,) = cache_folder("bundles").iterdir()
    old = time.time() - 40 * 86400
    os.utime(bundle, (old, old))
    toolkit.load(filled.parent / "packed.bundle", "cpu").close()
    assert listed(capsys, "prune", "--older-than", "30d") == []


def test_all_removes_all_but_what_is_not_ours(
    filled: Path, cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (cache / "mine").mkdir()
    (cache / "mine" / "file").write_text("x")
    (cache / "bundles" / "link").symlink_to(tmp_path / "image.bundle")
    listed(capsys, "prune", "--all")
    assert kinds(listed(capsys)) == ["other"]
    assert (cache / "mine" / "file").is_file()
    assert (tmp_path / "image.bundle" / "manifest.json").is_file()
    toolkit.load(tmp_path / "packed.bundle", "cpu").close()  # and is made again


@pytest.mark.parametrize("arguments", [["--older-than", "soon"], ["--max-size", "2"], ["--max-size", "-1GB"]])
def test_amounts_that_cannot_be_read(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "prune", *arguments]) == 2
    error = capsys.readouterr().err
    assert "cannot read this amount" in error
    assert error.count("\n") == 1


def test_a_damaged_cache_is_listed_and_pruned(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (form,) = cache_folder("prepared").iterdir()
    (form / "prepared.json").write_text("{")
    (bundle,) = cache_folder("bundles").iterdir()
    (bundle / "manifest.json").write_text("{")
    assert sorted(str(entry["kind"]) for entry in listed(capsys) if not entry["valid"]) == ["bundle", "prepared"]
    shutil.rmtree(cache_folder("stamps"))
    assert kinds(listed(capsys, "prune")) == ["bundle", "prepared"]
