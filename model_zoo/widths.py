"""Entries of the zoo at another width, to see how cost grows with it: what "width" means in each family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolkit.errors import UsageError

from .entry import ZooEntry

Arguments = Mapping[str, Any]
# Of the architectures that do not say how many heads their attention has.
_DEFAULT_HEADS = 12


def _fcnn(arguments: Arguments, width: int) -> dict[str, Any]:
    """The first hidden layer gets ``width``, the others in proportion; input and output stay."""
    first, *hidden, last = arguments["widths"]
    return {"widths": (first, *_scaled(hidden, width), last)}


def _cnn(arguments: Arguments, width: int) -> dict[str, Any]:
    return {"channels": tuple(_scaled(arguments["channels"], width))}


def _scaled(sizes: Sequence[int], width: int) -> list[int]:
    return [max(1, round(size * width / sizes[0])) for size in sizes]


def _rnn(_: Arguments, width: int) -> dict[str, Any]:
    return {"hidden": width}


def _attention(*names: tuple[str, int]) -> Callable[[Arguments, int], dict[str, Any]]:
    """Arguments that are multiples of the width, which the heads must divide."""

    def arguments_of(arguments: Arguments, width: int) -> dict[str, Any]:
        key = next((key for key in ("heads", "num_attention_heads", "n_head") if key in arguments), "")
        heads = arguments.get(key, _DEFAULT_HEADS)
        if width % heads:
            raise UsageError(
                "the heads must divide the width", where=f"width={width}", expected=f"a multiple of {heads}"
            )
        return {name: factor * width for name, factor in names}

    return arguments_of


_WIDTHS: Mapping[str, Callable[[Arguments, int], dict[str, Any]]] = {
    "fcnn": _fcnn,
    "cnn": _cnn,
    "rnn": _rnn,
    "patch_classifier": _attention(("width", 1)),
    "text_classifier": _attention(("width", 1)),
    "causal_language_model": _attention(("width", 1)),
    "vit": _attention(("hidden_size", 1), ("intermediate_size", 4)),
    "bert": _attention(("hidden_size", 1), ("intermediate_size", 4)),
    "llama": _attention(("hidden_size", 1), ("intermediate_size", 4)),
    "distilbert": _attention(("dim", 1), ("hidden_dim", 4)),
    "gpt2": _attention(("n_embd", 1)),
}


def with_width(entry: ZooEntry, width: int) -> ZooEntry:
    """``entry`` with ``width`` units where its family counts them.

    Raises:
        UsageError: its architecture has no width to vary, or not this one.
    """
    if entry.factory not in _WIDTHS:
        raise UsageError("this architecture has no width to vary", where=f"zoo:{entry.name}")
    if width < 1:
        raise UsageError("a width is 1 or more", where=f"zoo:{entry.name}", got=width)
    changed = _WIDTHS[entry.factory](entry.arguments, width)
    return dataclasses.replace(entry, arguments={**entry.arguments, **changed})
