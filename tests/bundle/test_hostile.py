"""What strangers may put into a bundle, one trick at a time: each is refused in one line, with nothing left behind."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import msgspec
import pytest

from tests.bundle.mutations import MANIFEST, mended, pack, unpack
from tests.bundle.seeds import make_bundle
from toolkit.bundle.archive import pack as pack_folder
from toolkit.bundle.archive import unpacked
from toolkit.bundle.manifest import MAX_BYTES, MAX_VARIANTS, Manifest, decode, encode
from toolkit.bundle.reader import check_variant, open_bundle
from toolkit.errors import InvalidBundle, InvalidModel
from toolkit.runtime.loader import load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle("large", tmp_path)


@pytest.fixture
def content(folder: Path, tmp_path: Path) -> bytes:
    pack_folder(folder, tmp_path / "packed.zip")
    return (tmp_path / "packed.zip").read_bytes()


def refused(tmp_path: Path, content: bytes, match: str) -> None:
    """``content`` as a packed bundle is refused, and neither the cache nor the folder beside it holds anything new."""
    path = tmp_path / "hostile.zip"
    path.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidBundle, match=match) as caught:
        unpacked(path)
    assert "\n" not in str(caught.value)
    assert [item for item in sorted(tmp_path.rglob("*")) if item.is_file() or item.is_symlink()] == [
        item for item in before if item.is_file() or item.is_symlink()
    ]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../evil", "leaves the bundle"),
        ("", "leaves the bundle"),
        ("/", "leaves the bundle"),
        ("/tmp/evil", "leaves the bundle"),
        ("C:/evil", "leaves the bundle"),
        ("a\\..\\evil", "leaves the bundle"),
        ("a/./b", "leaves the bundle"),
        ("x" * 300, "too long"),
        ("/".join(["d" * 200] * 8), "too long"),
        ("MANIFEST.json", "one name"),
        ("Models/own.onnx", "one name"),
        ("manifest.json/x", "a file and a folder"),
        ("a\nb", "control characters"),
        ("\u202eevil", "control characters"),
    ],
)
def test_names_of_members(tmp_path: Path, content: bytes, name: str, match: str) -> None:
    refused(tmp_path, pack({**unpack(content), name: b"evil"}), match)


def test_a_nul_hides_no_name(tmp_path: Path, content: bytes) -> None:
    marked = pack({**unpack(content), "good@../../evil": b"evil"})
    refused(tmp_path, marked.replace(b"good@", b"good\0"), "leaves the bundle")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140666])
def test_links_and_devices(tmp_path: Path, content: bytes, mode: int) -> None:
    refused(tmp_path, pack({**unpack(content), "odd": b"/etc/passwd"}, {"odd": mode}), "link or a device")


def test_a_member_twice(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, pack([*unpack(content).items(), (MANIFEST, b"{}")]), "one name")


def test_members_that_share_bytes(tmp_path: Path, content: bytes) -> None:
    members = unpack(content)
    data = bytearray(pack({**members, "copy": next(iter(members.values()))}))
    last = data.rfind(b"PK\1\2")
    data[last + 42 : last + 46] = struct.pack("<L", 0)  # where its local header is
    refused(tmp_path, bytes(data), "overlap|whole zip")


def test_more_members_than_any_bundle_has(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, pack({**unpack(content), **{f"m/{number}": b"" for number in range(10_001)}}), "more members")


def test_an_encrypted_member(tmp_path: Path, content: bytes) -> None:
    data = bytearray(content)
    at = data.rfind(b"PK\1\2")
    data[at + 8] |= 1
    refused(tmp_path, bytes(data), "encrypted|whole zip")


def test_a_compressed_member(tmp_path: Path) -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, "{}")
        archive.writestr("bomb", b"0" * 10_000_000)
    refused(tmp_path, output.getvalue(), "compressed or claims")


@pytest.mark.parametrize("left", [0, 10, 100, 1000, 10_000])
def test_a_truncated_zip(tmp_path: Path, content: bytes, left: int) -> None:
    path = tmp_path / "hostile.zip"
    path.write_bytes(content[:left] or b"PK")
    with pytest.raises(InvalidBundle, match="not a whole zip"):
        unpacked(path)


def test_a_comment_at_the_end_hides_no_second_directory(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, content + b"comment", "not a whole zip")


# The manifest


def forged(folder: Path, **changes: object) -> bytes:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    return json.dumps({**manifest, **changes}).encode()


def test_a_deep_manifest(folder: Path) -> None:
    deep = forged(folder, state="DEEP").replace(b'"DEEP"', b'{"a":' * 500_000 + b"1" + b"}" * 500_000)
    with pytest.raises(InvalidBundle, match="does not hold"):
        decode(deep, "m")
    deep = forged(folder, provenance={"other": "DEEP"}).replace(b'"DEEP"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    with pytest.raises(InvalidBundle, match="does not hold"):
        decode(deep, "m")


def test_a_huge_manifest_is_not_read_whole(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as handle:
        handle.truncate(50 << 30)  # sparse: it takes no room
    with pytest.raises(InvalidBundle, match="too large") as caught:
        open_bundle(folder)
    assert f"{MAX_BYTES + 1} bytes" in str(caught.value)


def test_many_variants(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    variants = tuple(msgspec.structs.replace(manifest.variants[0], name=f"v{i}") for i in range(MAX_VARIANTS + 1))
    with pytest.raises(InvalidBundle, match="more variants"):
        decode(encode(msgspec.structs.replace(manifest, variants=variants)), "m")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: msgspec.structs.replace(v, name="../up"), "leaves the bundle"),
        (lambda v: msgspec.structs.replace(v, name="a/b"), "not one file name"),
        (lambda v: msgspec.structs.replace(v, model="other.onnx"), "does not list its model"),
        (lambda v: msgspec.structs.replace(v, targets=(msgspec.structs.replace(v.targets[0], threads=-1),)), "range"),
        (
            lambda v: msgspec.structs.replace(v, targets=(msgspec.structs.replace(v.targets[0], threads=10**9),)),
            "range",
        ),
    ],
)
def test_variants_that_do_not_hold(folder: Path, change: object, match: str) -> None:
    manifest = open_bundle(folder).manifest
    variant = change(manifest.variants[0])  # type: ignore[operator]
    with pytest.raises(InvalidBundle, match=match):
        decode(encode(msgspec.structs.replace(manifest, variants=(variant,))), "m")


@pytest.mark.parametrize("size", [-1, 1 << 50, 10**400])
def test_sizes_that_no_tensor_has(folder: Path, size: int) -> None:
    text = (folder / MANIFEST).read_text().replace('"batch"', str(size), 1)
    with pytest.raises(InvalidBundle, match="size of an input out of range|does not hold"):
        decode(text.encode(), "m")


def rewritten(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_bytes(encode(manifest))


@pytest.mark.parametrize(
    ("provider", "option", "value"),
    [
        ("openvino", "CACHE_DIR", "/tmp/evil"),
        ("cpu", "ep.context_file_path", "/tmp/evil"),
        ("cpu", "session.set_denormal_as_zero", True),
        ("cpu", "ep.context_enable", "1"),
    ],
)
def test_a_bundle_may_not_set_options_that_reach_outside(folder: Path, provider: str, option: str, value: str) -> None:
    manifest = open_bundle(folder).manifest
    (variant,) = manifest.variants
    targets = tuple(msgspec.structs.replace(own, engine_options={option: value}) for own in variant.targets)
    changed = msgspec.structs.replace(variant, targets=targets)
    rewritten(folder, msgspec.structs.replace(manifest, variants=(changed,)))
    with pytest.raises(InvalidBundle, match=f"reaches outside.*{option}"):
        load(folder, provider)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("change", [{"dtype": "float64"}, {"shape": ("batch", 4096)}, {"shape": ("batch",)}])
def test_a_manifest_that_describes_other_tensors(folder: Path, provider: str, change: dict[str, object]) -> None:
    manifest = open_bundle(folder).manifest
    inputs = (msgspec.structs.replace(manifest.inputs[0], **change),)
    rewritten(folder, msgspec.structs.replace(manifest, inputs=inputs))
    with pytest.raises(InvalidBundle, match="another input than the model has"):
        load(folder, provider)


# The inside


def test_weights_that_the_manifest_does_not_list(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    files = manifest["variants"][0]["files"]
    manifest["variants"][0]["files"] = {name: record for name, record in files.items() if name.endswith(".onnx")}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    opened = open_bundle(folder)
    with pytest.raises(InvalidBundle, match="manifest does not list"):
        check_variant(opened, opened.manifest.variants[0])


def test_weights_that_are_a_link(folder: Path, tmp_path: Path) -> None:
    (data,) = (folder / "models").glob("*.data")
    outside = tmp_path / "outside.data"
    data.rename(outside)
    data.symlink_to(outside)
    opened = open_bundle(folder)
    with pytest.raises(InvalidBundle, match="link out of the bundle"):
        check_variant(opened, opened.manifest.variants[0])


def test_weights_that_are_too_short_for_what_is_claimed(content: bytes, tmp_path: Path) -> None:
    members = unpack(content)
    name = next(name for name in members if name.endswith(".data"))
    path = tmp_path / "short.zip"
    path.write_bytes(pack(mended({**members, name: members[name][:-1]})))
    with pytest.raises(InvalidModel, match="external data ends at"):
        load(path, "cpu")


def test_a_model_of_no_known_kind(folder: Path) -> None:
    text = (folder / MANIFEST).read_text().replace("models/own.onnx", "models/own.ort")
    (folder / MANIFEST).write_text(text)
    (folder / "models/own.onnx").rename(folder / "models/own.ort")
    with pytest.raises(InvalidBundle, match="no known kind"):
        load(folder, "cpu")
