"""Stamps hold while a file is untouched, whatever its times are set to afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit import stamps
from toolkit.files import cache_folder, sha256


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(b"one")
    return path


def test_a_check_is_remembered_under_its_own_name(file: Path) -> None:
    assert not stamps.passed(file, "a")
    stamps.remember(file, "a")
    assert stamps.passed(file, "a")
    assert not stamps.passed(file, "b")


def test_writing_ends_a_stamp_even_with_the_old_time_and_size(file: Path) -> None:
    stamps.remember(file, "a")
    facts = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert file.stat().st_mtime_ns == facts.st_mtime_ns
    assert not stamps.passed(file, "a")


def test_a_hash_is_not_remembered_of_a_file_that_just_changed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stamps.known_sha256(file) == sha256(file)
    assert not cache_folder("stamps").exists()
    monkeypatch.setattr(stamps, "_SETTLED_NS", 0)
    assert stamps.known_sha256(file) == sha256(file)
    monkeypatch.setattr(stamps, "sha256", lambda path: pytest.fail("it was hashed again"))
    assert stamps.known_sha256(file) == sha256(file)


def test_a_cache_that_cannot_be_written_costs_only_time(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    stamps.remember(file, "a")
    assert not stamps.passed(file, "a")
    assert stamps.known_sha256(file) == sha256(file)


def test_a_damaged_stamp_is_none(file: Path) -> None:
    stamps.remember(file, "a")
    (stamp,) = cache_folder("stamps").iterdir()
    assert stamps.holds(stamp)
    for content in (b"", b"\xff\xfe", b"x"):
        stamp.write_bytes(content)
        assert not stamps.passed(file, "a")
        assert not stamps.holds(stamp)


def test_what_was_built_here_is_known_by_its_hash() -> None:
    assert not stamps.built_here("0" * 64)
    stamps.remember_built("0" * 64, "a blob")
    assert stamps.built_here("0" * 64)
