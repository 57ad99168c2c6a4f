"""Checkpoints into modules: nothing is unpickled, every key has to fit."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.errors import InvalidModel, MissingDependency, UsageError, one_line
from toolkit.files import existing_file
from toolkit.tensors import nearest

# Put before every key by wrappers around a module: DataParallel, torch.compile, Lightning and others.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
# Counters of batch normalisation that evaluation does not read; old checkpoints lack them.
_UNUSED = ("num_batches_tracked",)


def load_weights(module: nn.Module, path: str | os.PathLike[str], key: str | None = None) -> tuple[str, ...]:
    """Load a checkpoint into ``module``; returns notes on what had to be understood.

    Raises:
        FileProblem, InvalidModel: the file is missing, no checkpoint, or one that holds Python objects.
        UsageError: the weights are not where ``key`` says, or do not fit the module.
    """
    path = existing_file(path, "weights file")
    content = _read(path)
    weights, notes = _find(content, key, path)
    weights, renamed = _without_prefix(weights, module)
    _fit(module, weights, path)
    return notes + renamed


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    for mapped in (True, False):  # only the newer of the two formats can be mapped
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as exc:
            raise InvalidModel(
                "not a checkpoint of plain tensors: it is damaged or holds Python objects, which are never unpickled",
                where=path,
                got=_forbidden(exc),
                next_step="save module.state_dict() alone, best as .safetensors",
            ) from exc
        except (RuntimeError, ValueError, EOFError, KeyError, OSError, AttributeError) as exc:
            if not mapped:
                raise InvalidModel(
                    "not a readable checkpoint", where=path, got=_unread(exc, path),
                    expected="a .safetensors file, or what torch.save wrote",
                ) from exc  # fmt: skip
    raise AssertionError("both ways return or raise")


def _unread(exc: BaseException, path: Path) -> str:
    """What torch said; of what is no pickle at all it only says the number of a byte, so the beginning is shown."""
    if not isinstance(exc, KeyError):
        return one_line(exc, 160)
    with path.open("rb") as stream:
        return f"a file that begins with {stream.read(24)!r}"


def _forbidden(exc: BaseException) -> str:
    """The part of torch's long text that names what it met."""
    lines = [line.strip() for line in str(exc).splitlines()]
    named = [line for line in lines if line.startswith(("WeightsUnpickler error", "Unsupported"))]
    return one_line((named or lines or [""])[0], 160)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as exc:
        raise MissingDependency.of("safetensors", "export", "reading .safetensors files") from exc
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, OSError) as exc:
        raise InvalidModel("not a readable .safetensors file", where=path, got=one_line(exc, 160)) from exc


def _find(content: Any, key: str | None, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights inside ``content``, at ``key`` or at the one place that holds some."""
    if key is not None:
        for part in key.split("."):
            if not isinstance(content, Mapping) or part not in content:
                known = list(content) if isinstance(content, Mapping) else []
                raise UsageError(
                    "no such key in the checkpoint", where=path, got=key, expected=nearest(key, map(str, known))
                )
            content = content[part]
        if not _is_weights(content):
            raise UsageError("there are no weights under this key", where=path, got=key, expected=_places(content))
        return dict(content), ()
    if _is_weights(content):
        return dict(content), ()
    places = _weights_places(content)
    if len(places) != 1:
        raise UsageError(
            "cannot tell which part of the checkpoint holds the weights"
            if places
            else "the checkpoint holds no weights",
            where=path,
            got=", ".join(places) if places else type(content).__name__,
            next_step="--weights-key names one" if places else None,
        )
    ((place, weights),) = places.items()
    return weights, (f"weights taken from the checkpoint's key '{place}'",)


def _is_weights(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(item, Tensor) for item in content.values())


def _weights_places(content: Any, prefix: str = "", depth: int = 2) -> dict[str, dict[str, Tensor]]:
    if not isinstance(content, Mapping) or depth == 0:
        return {}
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items():
        if _is_weights(value):
            found[f"{prefix}{key}"] = dict(value)
        else:
            found |= _weights_places(value, f"{prefix}{key}.", depth - 1)
    return found


def _places(content: Any) -> str:
    places = list(_weights_places(content))
    return f"one of: {', '.join(places)}" if places else "a mapping of names to tensors"


def _without_prefix(weights: dict[str, Tensor], module: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Take off a prefix that every key has and that the module's keys lack, if more keys fit without it."""
    wanted = set(module.state_dict())
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            stripped = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
            if len(wanted & set(stripped)) > len(wanted & set(weights)):
                return stripped, (f"prefix '{prefix}' taken off the checkpoint's keys",)
    return weights, ()


def _fit(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load, or say which keys do not fit."""
    own = module.state_dict()
    shapes = [
        f"{name} {list(weights[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in weights and isinstance(own[name], Tensor) and own[name].shape != weights[name].shape
    ]
    if shapes:
        raise UsageError(
            "weights of another shape", where=path, got=_listed(shapes), next_step="is it another variant?"
        )
    missing = [name for name in own if name not in weights and not name.endswith(_UNUSED)]
    missing = [name for name in missing if not _tied(own, name, weights)]
    unexpected = [name for name in weights if name not in own]
    if missing or unexpected:
        parts = [f"missing {_listed(missing)}"] * bool(missing) + [f"unexpected {_listed(unexpected)}"] * bool(
            unexpected
        )
        guess = nearest(missing[0], unexpected) if missing and unexpected else None
        raise UsageError(
            "the checkpoint does not fit the module", where=path, got="; ".join(parts),
            expected=f"for {missing[0]}: {guess[:120]}" if guess else None,
        )  # fmt: skip
    with torch.no_grad():
        module.load_state_dict(weights, strict=False)


def _tied(own: Mapping[str, Any], name: str, weights: Mapping[str, Tensor]) -> bool:
    """Whether ``name`` is the same memory as a weight that the checkpoint has."""
    place = own[name].data_ptr() if isinstance(own[name], Tensor) else 0
    return any(
        isinstance(tensor, Tensor) and tensor.data_ptr() == place and tensor.shape == own[name].shape
        for other, tensor in own.items()
        if other in weights
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
