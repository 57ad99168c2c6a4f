"""Damaged and forged bundles from a number: the same number makes the same bytes.

A case starts from a seed bundle and breaks it at one level: the bytes of the zip, the names and headers of its members,
the manifest, or what is inside, in which case the hashes are made right again, so that the inside is reached.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from toolkit.onnxfile.schema import MESSAGES
from toolkit.onnxfile.wire import BYTES, VARINT, encode_varint, fields

MANIFEST = "manifest.json"
Members = dict[str, bytes]
# Numbers at the edges of what programs count with.
EDGES = (
    0, 1, 2, 7, 8, 127, 128, 255, 256, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40,
    (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2,
)  # fmt: skip
NAMES = (
    "../evil", "../../evil", "/outside/evil", "a/../../evil", "C:/evil", "C:\\evil", "..\\evil", "a//b", "", ".", "..",
    "a\0b", "x" * 300, "/".join("d" * 200 for _ in range(8)), "MANIFEST.JSON", "manifest.json/x", "models", "é",
    "e\u0301", "a\nb", "\u202eevil", "con", "a" * 255, "~/evil", "$HOME/evil", "models/", "./models/x",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 99, 1e308, -0.5, 2**63, -(2**63), 10**400, "", "x", "../evil", "\0", "é" * 500, [], {},
    [[]], [None], {"a": 1}, "cpu", "float32", "int8", "string", ["x"] * 3,
)  # fmt: skip


def case(seed: int, seeds: Mapping[str, bytes]) -> tuple[str, bytes]:
    """What was broken, in words, and the bytes of the packed bundle."""
    generator = random.Random(seed)
    name = generator.choice(sorted(seeds))
    kind = generator.choices(list(_KINDS), weights=[weight for weight, _ in _KINDS.values()])[0]
    return f"{name}: {kind}", _KINDS[kind][1](generator, seeds[name])


def unpack(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members: Mapping[str, bytes] | list[tuple[str, bytes]], modes: Mapping[str, int] | None = None) -> bytes:
    """A zip of ``members``, which may hold a name twice when it is a list."""
    output = io.BytesIO()
    pairs = list(members.items()) if isinstance(members, Mapping) else members
    with warnings.catch_warnings(), zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        warnings.simplefilter("ignore", UserWarning)  # names that stand there twice
        for name, content in pairs:
            info = zipfile.ZipInfo("placeholder", (1980, 1, 1, 0, 0, 0))
            info.filename = name
            info.external_attr = (modes or {}).get(name, 0o644) << 16
            archive.writestr(info, content)
    return output.getvalue()


# The zip itself


def damaged(generator: random.Random, content: bytes) -> bytes:
    """``content`` with a few bytes changed, cut, doubled or filled."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = generator.randrange(len(data))
        size = min(generator.choice((1, 2, 4, 8, 64, 1024)), len(data) - at)
        generator.choice(_DAMAGES)(generator, data, at, size)
    return bytes(data)


def _flip(generator: random.Random, data: bytearray, at: int, size: int) -> None:
    data[at] ^= 1 << generator.randrange(8)


def _set(generator: random.Random, data: bytearray, at: int, size: int) -> None:
    data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))


def _cut(generator: random.Random, data: bytearray, at: int, size: int) -> None:
    del data[at : at + size]


def _truncate(generator: random.Random, data: bytearray, at: int, size: int) -> None:
    del data[at:]


def _double(generator: random.Random, data: bytearray, at: int, size: int) -> None:
    data[at:at] = data[at : at + size]


def _fill(generator: random.Random, data: bytearray, at: int, size: int) -> None:
    data[at : at + size] = bytes([generator.choice((0, 0xFF, 0x41))]) * size


def _random(generator: random.Random, data: bytearray, at: int, size: int) -> None:
    data[at : at + size] = generator.randbytes(size)


_DAMAGES: tuple[Callable[[random.Random, bytearray, int, int], None], ...] = (
    _flip, _flip, _set, _set, _cut, _truncate, _double, _fill, _random,
)  # fmt: skip


def forged_members(generator: random.Random, content: bytes) -> bytes:
    """The same files under other names, twice, as links or devices, or with bytes that overlap."""
    pairs = list(unpack(content).items())
    at = generator.randrange(len(pairs))
    choice = generator.randrange(6)
    if choice == 0:
        pairs[at] = (generator.choice(NAMES), pairs[at][1])
    elif choice == 1:
        pairs.append((generator.choice(NAMES), b"evil"))
    elif choice == 2:
        pairs.append((generator.choice((pairs[at][0], pairs[at][0].upper())), b"evil"))
    elif choice == 3:
        pairs += [(f"models/{number}", b"") for number in range(generator.choice((10, 20_000)))]
    elif choice == 4:
        mode = generator.choice((0o120777, 0o020666, 0o060666, 0o010666, 0o140666, 0o040755))
        pairs[at] = (pairs[at][0], b"/outside")
        return pack(pairs, {pairs[at][0]: mode})
    else:
        return _forged_directory(generator, content)
    return pack(pairs)


def _forged_directory(generator: random.Random, content: bytes) -> bytes:
    """Damage in the zip's directory alone, where sizes, offsets and methods stand."""
    start = content.rfind(b"PK\1\2")
    first = content.find(b"PK\1\2")
    at = generator.choice((first, start)) + generator.choice((8, 10, 16, 20, 24, 28, 30, 32, 38, 42))
    data = bytearray(content)
    data[at : at + 4] = generator.choice(EDGES).to_bytes(9, "little")[:4]
    return bytes(data)


# The manifest


def forged_manifest(generator: random.Random, content: bytes) -> bytes:
    members = unpack(content)
    manifest = json.loads(members[MANIFEST])
    for _ in range(generator.choice((1, 1, 2, 3))):
        _change(generator, manifest)
    text = json.dumps(manifest)
    choice = generator.randrange(12)
    if choice == 0:
        text = damaged(generator, text.encode()).decode("latin1")
    elif choice == 1:
        depth = generator.choice((100, 10_000, 500_000))
        text = text.replace("{}", "[" * depth + "]" * depth, 1)
    elif choice == 2:
        many = json.dumps(manifest.get("variants") or [{}])[1:-1]
        count = generator.choice((1_000, 20_000))
        text = json.dumps({**manifest, "variants": "MANY"}).replace('"MANY"', f"[{','.join([many] * count)}]")
    members[MANIFEST] = text.encode("utf-8", "surrogatepass")
    return pack(members)


def _change(generator: random.Random, manifest: Any) -> None:
    """Remove, add or replace one value somewhere in the manifest."""
    places = list(_places(manifest))
    if not places:
        return
    holder, key = generator.choice(places)
    choice = generator.randrange(5)
    if choice == 0:
        del holder[key]
    elif choice == 1 and isinstance(holder, dict):
        holder[generator.choice((*NAMES, "unknown"))] = generator.choice(VALUES)
    elif choice == 2 and isinstance(holder[key], int):
        holder[key] = generator.choice((*EDGES, -1, holder[key] + 1))
    elif choice == 3 and isinstance(holder[key], str):
        holder[key] = generator.choice((*NAMES, holder[key] + "x", holder[key][:-1]))
    else:
        holder[key] = generator.choice(VALUES)


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


# What is inside, with hashes made right again


def forged_model(generator: random.Random, content: bytes) -> bytes:
    return _inside(generator, content, ".onnx", _forged_onnx)


def damaged_model(generator: random.Random, content: bytes) -> bytes:
    return _inside(generator, content, ".onnx", damaged)


def damaged_weights(generator: random.Random, content: bytes) -> bytes:
    return _inside(generator, content, ".data", damaged)


def _inside(
    generator: random.Random, content: bytes, suffix: str, change: Callable[[random.Random, bytes], bytes]
) -> bytes:
    members = unpack(content)
    for name in [name for name in sorted(members) if name.endswith(suffix)]:
        members[name] = change(generator, members[name]) or b"\0"
    return pack(mended(members))


def mended(members: Members) -> Members:
    """The same members under a manifest whose sizes and hashes hold."""
    manifest = json.loads(members[MANIFEST])
    for variant in manifest["variants"]:
        for owner in (variant, *variant.get("prepared", [])):
            for name in owner["files"]:
                found = members[name]
                owner["files"][name] = {"sha256": hashlib.sha256(found).hexdigest(), "size_bytes": len(found)}
    return {**members, MANIFEST: json.dumps(manifest).encode()}


def _forged_onnx(generator: random.Random, content: bytes) -> bytes:
    """An ONNX file that is good protobuf, with some of its fields changed."""
    tree = _tree(content, "model")
    for _ in range(generator.choice((1, 1, 1, 2, 3, 6))):
        holder = generator.choice(list(_holders(tree)))
        if holder:
            _forge_field(generator, holder)
    return _encoded(tree)


def _tree(content: bytes, kind: str) -> list[list[Any]]:
    """Fields as [number, wire, value], where the value of a known message is a tree again."""
    found = []
    for field in fields(content, 0, len(content)):
        raw: Any = content[field.start : field.end]
        child = MESSAGES[kind].get(field.number)
        if field.wire == VARINT:
            raw = field.value
        elif field.wire == BYTES and child is not None:
            raw = _tree(raw, child)
        found.append([field.number, field.wire, raw])
    return found


def _holders(tree: list[list[Any]]) -> Any:
    yield tree
    for _, _, value in tree:
        if isinstance(value, list):
            yield from _holders(value)


def _forge_field(generator: random.Random, holder: list[list[Any]]) -> None:
    at = generator.randrange(len(holder))
    field = holder[at]
    choice = generator.randrange(8)
    if choice == 0:
        del holder[at]
    elif choice == 1:
        holder.insert(at, field)
    elif choice == 2:
        field[0] = generator.choice((field[0] + 1, generator.randrange(1, 30)))
    elif choice == 3 and isinstance(field[2], list):
        for _ in range(generator.choice((1, 40))):
            field[2] = [[field[0], BYTES, field[2]]]
    elif isinstance(field[2], int):
        field[2] = generator.choice((*EDGES, field[2] + 1, max(0, field[2] - 1)))
    elif isinstance(field[2], bytes):
        texts = [name.encode() for name in NAMES] + [b"EPContext", b"If", b"Loop", b"Reshape", b"Conv", b"99999999999"]
        field[2] = generator.choice((damaged(generator, field[2]), b"", field[2] * 3, generator.choice(texts)))
    else:
        holder[at] = generator.choice(holder)


def _encoded(tree: list[list[Any]]) -> bytes:
    output = bytearray()
    for number, wire, value in tree:
        output += encode_varint(number << 3 | wire)
        if wire == VARINT:
            output += encode_varint(value)
        else:
            content = _encoded(value) if isinstance(value, list) else value
            output += (encode_varint(len(content)) if wire == BYTES else b"") + content
    return bytes(output)


# kind: (how often, how it is made). Half of the cases reach the inside.
_KINDS: Mapping[str, tuple[int, Callable[[random.Random, bytes], bytes]]] = {
    "damaged zip": (15, damaged),
    "forged members": (15, forged_members),
    "forged manifest": (20, forged_manifest),
    "forged model": (30, forged_model),
    "damaged model": (12, damaged_model),
    "damaged weights": (8, damaged_weights),
}
