"""Bundles: what is written is what is read, and nothing that was changed, moved or forged is opened."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import msgspec
import pytest

from toolkit.bundle.archive import MANIFEST, pack, unpacked
from toolkit.bundle.kind import is_bundle
from toolkit.bundle.manifest import SCHEMA_VERSION, Manifest, Variant, decode, encode
from toolkit.bundle.reader import check_variant, open_bundle
from toolkit.bundle.writer import VariantSource, add_variant, create_bundle
from toolkit.errors import FileProblem, InvalidBundle, UsageError
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

SPEC = TensorSpec("x", "float32", ("batch", 4))
# The least that is an ONNX file: a model with an empty graph of this name.
WEIGHTS = b"\x3a\x09\x12\x07weights"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def source(folder: Path, name: str = "float32-cpu", content: bytes = WEIGHTS) -> VariantSource:
    model = folder / "model.onnx"
    model.write_bytes(content)
    target = Target(name="cpu", provider="cpu")
    return VariantSource(
        Variant(name=name, model="model.onnx", precision="float32", targets=(target,), files={}), model
    )


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    manifest = Manifest(name="m", inputs=(SPEC,), outputs=(SPEC,), labels=("a", "b"))
    create_bundle(tmp_path / "m.bundle", manifest, [source(tmp_path)])
    return tmp_path / "m.bundle"


def test_what_was_written_is_read_again(bundle_path: Path) -> None:
    opened = open_bundle(bundle_path)
    assert opened.manifest.labels == ("a", "b")
    assert opened.manifest.inputs == (SPEC,)
    (variant,) = opened.manifest.variants
    assert opened.model_file(variant).read_bytes() == WEIGHTS
    check_variant(opened, variant, "always")


def test_manifest_round_trip_gives_the_same_bytes(bundle_path: Path) -> None:
    content = (bundle_path / MANIFEST).read_bytes()
    assert encode(decode(content, "here")) == content


def test_same_input_gives_the_same_packed_bytes(bundle_path: Path, tmp_path: Path) -> None:
    pack(bundle_path, tmp_path / "a.zip")
    os.utime(bundle_path / MANIFEST, (1, 1))
    pack(bundle_path, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_packed_bundle_opens_like_its_folder(bundle_path: Path, tmp_path: Path) -> None:
    pack(bundle_path, tmp_path / "m.zip")
    assert is_bundle(tmp_path / "m.zip")
    opened = open_bundle(tmp_path / "m.zip")
    assert opened.manifest == open_bundle(bundle_path).manifest
    check_variant(opened, opened.manifest.variants[0])


def test_a_changed_byte_is_found(bundle_path: Path) -> None:
    opened = open_bundle(bundle_path)
    variant = opened.manifest.variants[0]
    check_variant(opened, variant)
    opened.model_file(variant).write_bytes(WEIGHTS[:-1] + b"z")
    with pytest.raises(InvalidBundle, match="changed after the bundle was made"):
        check_variant(opened, variant)


def test_the_stamp_saves_the_second_hash_and_always_does_not_use_it(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle_path)
    variant = opened.manifest.variants[0]
    hashed: list[Path] = []
    from toolkit.bundle import reader

    real = reader.sha256
    monkeypatch.setattr(reader, "sha256", lambda path: hashed.append(path) or real(path))
    check_variant(opened, variant)
    check_variant(opened, variant)
    assert len(hashed) == 1
    check_variant(opened, variant, "always")
    assert len(hashed) == 2


def test_a_missing_file_and_a_wrong_size_are_named(bundle_path: Path) -> None:
    opened = open_bundle(bundle_path)
    variant = opened.manifest.variants[0]
    opened.model_file(variant).write_bytes(b"short")
    with pytest.raises(InvalidBundle, match="not the size"):
        check_variant(opened, variant)
    opened.model_file(variant).unlink()
    with pytest.raises(InvalidBundle, match="missing"):
        check_variant(opened, variant)


def test_a_link_out_of_the_bundle_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle_path)
    variant = opened.manifest.variants[0]
    file = opened.model_file(variant)
    file.unlink()
    file.symlink_to(tmp_path / "model.onnx")
    with pytest.raises(InvalidBundle, match="link out of the bundle"):
        check_variant(opened, variant)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"schema_version": 99}',
        b'{"schema_version": "1"}',
        b"\xff\xfe",
        b'{"schema_version": 1, "name": 3}',
        b"null",
    ],
)
def test_a_manifest_that_does_not_hold_is_one_line(content: bytes) -> None:
    with pytest.raises(InvalidBundle) as caught:
        decode(content, "m.bundle")
    assert "\n" not in str(caught.value)


def test_a_newer_schema_says_what_to_do(bundle_path: Path) -> None:
    content = (bundle_path / MANIFEST).read_bytes()
    own, next_one = (f'"schema_version": {version}'.encode() for version in (SCHEMA_VERSION, SCHEMA_VERSION + 1))
    newer = content.replace(own, next_one)
    with pytest.raises(InvalidBundle, match="newer toolkit.*upgrade"):
        decode(newer, "m.bundle")


@pytest.mark.parametrize("member", ["../x", "/etc/passwd", "a/../../x", "C:/x", "a\\b", "a//b", "", "./x"])
def test_member_paths_stay_inside(bundle_path: Path, member: str) -> None:
    manifest = open_bundle(bundle_path).manifest
    (variant,) = manifest.variants
    record = variant.files[variant.model]
    forged = msgspec.structs.replace(variant, model=member, files={member: record})
    with pytest.raises(InvalidBundle, match="leaves the bundle"):
        decode(encode(msgspec.structs.replace(manifest, variants=(forged,))), "forged")


def forged_zip(path: Path, members: dict[str, bytes], *, mode: int = 0o644, compressed: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("members", "options"),
    [
        ({"other": b"x"}, {}),
        ({MANIFEST: b"{}", "../evil": b"x"}, {}),
        ({MANIFEST: b"{}", "/evil": b"x"}, {}),
        ({MANIFEST: b"{}", "link": b"/etc/passwd"}, {"mode": 0o120777}),
        ({MANIFEST: b"{}", "bomb": b"0" * 10_000_000}, {"compressed": True}),
    ],
)
def test_a_hostile_zip_leaves_nothing_behind(
    tmp_path: Path, members: dict[str, bytes], options: dict[str, object]
) -> None:
    path = forged_zip(tmp_path / "x.zip", members, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidBundle):
        unpacked(path)
    assert not list((tmp_path / "cache").rglob("*.unpack*"))
    assert not (tmp_path / "evil").exists()
    assert not [entry for entry in (tmp_path / "cache" / "bundles").iterdir() if entry.is_file()]


def test_a_truncated_zip_is_one_line(bundle_path: Path, tmp_path: Path) -> None:
    pack(bundle_path, tmp_path / "m.zip")
    content = (tmp_path / "m.zip").read_bytes()
    (tmp_path / "m.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidBundle, match="not a whole zip"):
        open_bundle(tmp_path / "m.zip")


def test_adding_a_variant_keeps_the_first(bundle_path: Path, tmp_path: Path) -> None:
    opened = add_variant(bundle_path, source(tmp_path, "int8-cpu", WEIGHTS))
    assert [variant.name for variant in opened.manifest.variants] == ["float32-cpu", "int8-cpu"]
    with pytest.raises(UsageError, match="variant of that name"):
        add_variant(bundle_path, source(tmp_path, "int8-cpu"))


def test_a_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    missing = msgspec.structs.replace(source(tmp_path), model=tmp_path / "nothing.onnx")
    with pytest.raises(FileProblem, match="no such"):
        create_bundle(tmp_path / "m.bundle", Manifest(name="m", inputs=(), outputs=()), [missing])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_nothing_is_overwritten(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="something is there already"):
        create_bundle(bundle_path, Manifest(name="m", inputs=(), outputs=()), [])
