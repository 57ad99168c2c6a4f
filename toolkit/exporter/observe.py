"""One run of a module under observation: what it does that a graph would not do, and where.

A graph is a function of its inputs. A module that draws random numbers, reads a clock, writes into itself, or takes
decisions in Python by what its inputs hold, is not; exporting it would record one of the many things it computes. All
of this is seen here while the module runs as usual, below its own code: suppressed warnings or exceptions hide
nothing.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toolkit.exporter import state
from toolkit.exporter.owncode import is_installed, is_stdlib

# Ways for Python to get at the content of a tensor, and what they are called in messages.
_READS = {
    "__bool__": "branch", "__contains__": "branch", "__array__": "numpy", "numpy": "numpy", "tolist": "tolist",
    "__dlpack__": "dlpack", "to_dlpack": "dlpack", "untyped_storage": "storage", "storage": "storage",
    "item": "item", "__int__": "item", "__float__": "item", "__index__": "item", "__complex__": "item",
}  # fmt: skip
# Operators that answer a Python value which says nothing about content.
_ABOUT_FORM = {"aten::is_same_size", "aten::is_contiguous", "aten::is_set_to", "aten::is_pinned"}
# Arguments that switch the randomness of a random operator off.
_OFF: dict[str, tuple[Any, ...]] = {"dropout_p": (0.0,), "p": (0.0,), "train": (False, None), "training": (False,)}
_CLOCKS = {
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time",
    "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns", "localtime", "gmtime",
    "now", "utcnow", "today", "urandom", "getrandom", "getrandbits", "random_raw", "generate_time_safe",
}  # fmt: skip
# Parts of the standard library that read clocks for their own ends, whoever calls them.
_BUSINESS = (
    "<frozen importlib",
    *(f"{Path(logging.__file__).parents[1]}/{name}" for name in ("logging/", "threading.py")),
)
_OWN, _TORCH = f"{Path(__file__).parent}/", f"{Path(torch.__file__).parent}/"


class Read(NamedTuple):
    """Python got at the content of a tensor that depends on the inputs."""

    kind: str
    where: str
    trusted: bool


class Observation(NamedTuple):
    """What was seen: reads, random operators, clocks and writes into the module's state, each with its place."""

    reads: tuple[Read, ...]
    random: tuple[str, ...]
    clocks: tuple[str, ...]
    writes: tuple[str, ...]
    input_writes: tuple[str, ...]
    selections: int = 0
    """Operators whose result's size depends on values, such as ``nonzero``."""


@contextmanager
def observed(module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> Iterator[Callable[[], Observation]]:
    """Observe the body of the block, which runs ``module`` on ``inputs``; yields what asks for the result."""
    watcher = _Watcher(state.tensors(module), dict(zip(names, inputs, strict=True)))
    clocks: list[str] = []
    generators = _generator_states()
    with _Reads(watcher), watcher, _profiled(_clock_profile(clocks)):
        yield lambda: watcher.result(clocks, generators)


@contextmanager
def _profiled(profile: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Let ``profile`` see every call, unless somebody is profiling this process: theirs could not be put back."""
    if sys.getprofile() is not None:
        yield
        return
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def _generator_states() -> dict[str, Any]:
    return {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's global generator": [*map(_plain, np.random.get_state())],
        "Python's random module": random.getstate(),
    }


def _plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


@final
class _Watcher(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped to the checker
    """Follows which memory depends on the inputs, operator by operator, and notes what happens to it."""

    def __init__(self, owned: dict[str, Tensor], inputs: dict[str, Tensor]) -> None:
        super().__init__()
        self._state = {_memory(tensor): path for path, tensor in owned.items()}
        self._inputs = {_memory(tensor): name for name, tensor in inputs.items()}
        self.tainted = set(self._inputs)
        self.reads: list[Read] = []
        self._random: list[str] = []
        self._writes: list[str] = []
        self._input_writes: list[str] = []
        self._selections = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            tainted = any(_memory(tensor) in self.tainted for tensor in given)
            self._note(func, args, kwargs, tainted)
        result = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            self._spread(func, args, kwargs, result, tainted)
        return result

    def _note(self, func: Any, args: Any, kwargs: Any, tainted: bool) -> None:
        name = func._schema.name
        if tainted and name == "aten::_local_scalar_dense":
            self.read("item")
        elif tainted and name not in _ABOUT_FORM and any(str(item.type) == "bool" for item in func._schema.returns):
            self.read("branch")
        if tainted and is_selection(func, args):
            self._selections += 1
        if torch.Tag.nondeterministic_seeded in func.tags and not _switched_off(func, args, kwargs):
            self._random.append(f"{name.removeprefix('aten::')} at {_place()[0]}")

    def _spread(self, func: Any, args: Any, kwargs: Any, result: Any, tainted: bool) -> None:
        written = _written(func, args, kwargs)
        for tensor in written:
            key = _memory(tensor)
            if key in self._state:
                self._writes.append(f"{self._state[key]} at {_place()[0]}")
            if key in self._inputs:
                self._input_writes.append(self._inputs[key])
            if tainted:
                self.tainted.add(key)
        kept = {_memory(tensor) for tensor in written}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := _memory(tensor)) not in kept:
                # Memory is reused: what an untainted operator makes is clean again, unless it is a view of its input.
                (self.tainted.add if tainted else self.tainted.discard)(key)

    def read(self, kind: str) -> None:
        where, trusted = _place()
        self.reads.append(Read(kind, where, trusted))

    def result(self, clocks: list[str], generators: dict[str, Any]) -> Observation:
        after = _generator_states()
        moved = tuple(f"{name} was used" for name in generators if generators[name] != after[name])
        return Observation(
            reads=tuple(dict.fromkeys(self.reads)),
            random=tuple(dict.fromkeys(self._random)) or moved,
            clocks=tuple(dict.fromkeys(clocks)),
            writes=tuple(dict.fromkeys(self._writes)),
            input_writes=tuple(dict.fromkeys(self._input_writes)),
            selections=self._selections,
        )


@final
class _Reads(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped to the checker
    """Sees the reads that never reach an operator, such as ``tolist`` and ``numpy``."""

    def __init__(self, watcher: _Watcher) -> None:
        super().__init__()
        self._watcher = watcher

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = _READS.get(getattr(func, "__name__", ""))
        if kind is not None and args and isinstance(args[0], Tensor):
            with torch._C.DisableTorchFunction():
                tainted = _memory(args[0]) in self._watcher.tainted
            if tainted:
                self._watcher.read(kind)
        return func(*args, **(kwargs or {}))


def is_selection(func: Any, args: Any) -> bool:
    """Whether the size of an operator's result depends on values: what Python may learn from it is content.

    Args:
        args: tensors, or what stands for them in a captured program (``meta["val"]``).
    """
    if torch.Tag.dynamic_output_shape not in getattr(func, "tags", ()):
        return False
    if func._schema.name != "aten::index":
        return True
    return any(getattr(item, "dtype", None) in (torch.bool, torch.uint8) for item in args[1] if item is not None)


def _memory(tensor: Tensor) -> int:
    """What identifies the memory a tensor looks at; tensors without memory of their own stand for themselves."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return id(tensor)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Arguments that the operator writes into, by its schema."""
    if not func._schema.is_mutable:
        return []
    found = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return found


def _switched_off(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the random operator is told not to be random, like attention with ``dropout_p=0``."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.name in _OFF:
            value = args[position] if position < len(args) else kwargs.get(argument.name, argument.default_value)
            if value in _OFF[argument.name]:
                return True
    return False


def _place() -> tuple[str, bool]:
    """File name and line of the code that led here, outside torch; and whether a trusted library asked torch to."""
    frame: FrameType | None = sys._getframe(1)
    trusted = False
    while frame is not None:
        name = frame.f_code.co_filename
        trusted = trusted or name.startswith(_trusted_folders())
        if not name.startswith((_OWN, _TORCH)):
            return f"{Path(name).name}:{frame.f_lineno}", trusted
        frame = frame.f_back
    return "?", trusted


def _trusted_folders() -> tuple[str, ...]:
    """Libraries whose reads are known to change nothing but speed, such as skipping a mask that is all ones."""
    return (f"{_TORCH}nn/", *library_folders()[1:])


def library_folders() -> tuple[str, ...]:
    """Where torch is, and transformers where it is in use."""
    transformers = getattr(sys.modules.get("transformers"), "__file__", None)
    return (_TORCH, *((f"{Path(transformers).parent}/",) if transformers else ()))


def _clock_profile(found: list[str]) -> Callable[[FrameType, str, Any], None]:
    """A profile function that notes calls of clocks and entropy sources from code that is no library's."""

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            name = getattr(argument, "__name__", "")
            if (name in _CLOCKS or (name == "seed" and _unseeded(frame))) and (place := _asked_at(frame)):
                found.append(f"{name}() at {place}")

    return profile


def _unseeded(frame: FrameType) -> bool:
    """Whether this is Python's generator, about to take its seed from the system."""
    return frame.f_code.co_filename == random.__file__ and frame.f_locals.get("a", 0) is None


def _asked_at(frame: FrameType | None) -> str:
    """File and line of the first caller outside Python's own library; empty where that is another library."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_BUSINESS) or is_installed(name):
            return ""
        if not is_stdlib(name):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
