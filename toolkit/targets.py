"""Targets: a provider, a device and how to use them. One TOML file each, in ``profiles/`` or where the user likes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from toolkit.errors import InvalidTarget
from toolkit.files import existing_file
from toolkit.tensors import nearest

Precision = Literal["float64", "float32", "float16", "bfloat16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("float64", "float32", "float16", "bfloat16", "int8", "int4")

# ONNX Runtime's own names, so that people can bring their habits. OpenVINOExecutionProvider is left out on purpose:
# it is another engine build than the native OpenVINO that this toolkit drives.
ALIASES: Mapping[str, str] = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "tensorrt",
}

# Keys that take certain words only, and those words.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "precisions": PRECISIONS,
    "inference_precision": ("bfloat16", "float16", "tf32"),
    "mode": ("latency", "throughput"),
}


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to run: provider and device, what precisions a file may have, threads, streams, engine options.

    ``precisions`` empty means any that the provider runs. ``inference_precision`` names the one rounding that an engine
    may do on its own ("bfloat16" on OpenVINO, "tf32" on CUDA); empty means that what runs is what the file says.
    ``threads`` and ``streams`` 0 mean all cores this process may use and the engine's choice.
    ``engine_options`` go to the engine as they are, under its own names.
    """

    name: str = ""
    description: str = ""
    provider: str
    device: str = ""
    precisions: tuple[Precision, ...] = ()
    inference_precision: Literal["", "bfloat16", "float16", "tf32"] = ""
    mode: Literal["latency", "throughput"] = "latency"
    threads: int = 0
    streams: int = 0
    engine_options: dict[str, str | int | float | bool] = {}

    def allows(self, precision: str) -> bool:
        return not self.precisions or precision in self.precisions


def profiles_folder() -> Path:
    """Where the shipped target files are: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "profiles"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "profiles"


def shipped_targets() -> dict[str, Target]:
    """All targets in ``profiles/`` by name, in order of name."""
    return {path.stem: read_target(path) for path in sorted(profiles_folder().glob("*.toml"), key=_stem)}


def _stem(path: Path) -> str:
    return path.stem


def read_target(path: str | Path) -> Target:
    """Read one target file.

    Raises:
        FileProblem: missing or unreadable.
        InvalidTarget: not TOML, an unknown key (the nearest known one is named), or a value of the wrong type.
    """
    import tomllib

    path = existing_file(path, "target file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidTarget("not a TOML file", where=path, got=exc) from exc
    for key in content:
        if key not in Target.__struct_fields__:
            raise InvalidTarget("unknown key", where=path, got=key, expected=nearest(key, Target.__struct_fields__))
    for key, allowed in _CHOICES.items():
        for value in content[key] if isinstance(content.get(key), list) else [content.get(key, "")]:
            if isinstance(value, str) and value not in ("", *allowed):
                raise InvalidTarget(f"unknown {key}", where=path, got=repr(value), expected=nearest(value, allowed))
    if isinstance(content.get("provider"), str):
        content["provider"] = ALIASES.get(content["provider"], content["provider"])
    content.setdefault("name", path.stem)
    try:
        target = msgspec.convert(content, Target)
    except msgspec.ValidationError as exc:
        raise InvalidTarget("a value does not fit", where=path, got=exc) from exc
    return _checked(target, path)


def _checked(target: Target, where: object) -> Target:
    if target.threads < 0 or target.streams < 0:
        raise InvalidTarget("threads and streams are 0 or more", where=where, got=f"{target.threads}, {target.streams}")
    return target


def find_target(text: str, providers: tuple[str, ...]) -> Target:
    """The target that ``text`` means: a shipped name, a path to a TOML file, or ``provider[:device]``.

    Args:
        text: what the user wrote.
        providers: names of the providers that exist.

    Raises:
        InvalidTarget: none of these; the nearest known name is suggested.
    """
    if text.endswith(".toml"):
        return read_target(text)
    shipped = profiles_folder() / f"{text}.toml"
    if text and "/" not in text and shipped.is_file():
        return read_target(shipped)
    name, _, device = text.partition(":")
    name = ALIASES.get(name, name)
    if name in providers:
        return Target(name=text, provider=name, device=device)
    if name == "OpenVINOExecutionProvider":
        raise InvalidTarget("that is another engine build", where="--target", got=name, expected="openvino (native)")
    known = (*providers, *(path.stem for path in profiles_folder().glob("*.toml")))
    raise InvalidTarget("unknown target", where="--target", got=repr(text), expected=nearest(text, known))


def as_json(target: Target) -> dict[str, Any]:
    """Plain data for reports and manifests."""
    return dict(msgspec.to_builtins(target))
