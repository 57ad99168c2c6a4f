"""Any Python iterable of batches: dictionaries, arrays, or ``(inputs, labels)`` pairs as data loaders give them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, final

import numpy as np

from toolkit.data.source import ANONYMOUS, LABELS, Block, Column, common_length, numeric
from toolkit.errors import InvalidData, ToolkitError, one_line
from toolkit.tensors import Array

Items = Iterable[Any] | Callable[[], Iterable[Any]]


@final
class IterableSource:
    """Batches from ``items``; the first decides the columns.

    Args:
        items: an iterable of batches, or a function that gives a new one each time. An iterator can be read once only.
        name: for messages.
    """

    def __init__(self, items: Items, name: str = "iterable") -> None:
        self._items, self.name = items, name
        self._pending: Iterator[Any] | None = None
        self.count = None
        self.constants: dict[str, Array] = {}
        self.state: dict[str, str] = {}
        self.class_names: tuple[str, ...] = ()
        first = next(_guarded(self._start(), name), None)
        if first is None:
            raise InvalidData("holds no samples", where=name)
        self.columns = tuple(_block(first, name))
        if self._is_iterator():
            self._pending = self._put_back(first)

    def _is_iterator(self) -> bool:
        return isinstance(self._items, Iterator)

    def _put_back(self, first: Any) -> Iterator[Any]:
        assert isinstance(self._items, Iterator)
        yield first
        yield from self._items

    def _start(self) -> Iterator[Any]:
        items = self._items() if callable(self._items) else self._items
        if not isinstance(items, Iterable):
            raise InvalidData("not an iterable", where=self.name, got=type(items).__name__)
        return iter(items)

    def _restart(self) -> Iterator[Any]:
        if not self._is_iterator():
            return self._start()
        if self._pending is None:
            raise InvalidData(
                "an iterator can be read only once", where=self.name, next_step="pass a function that makes a new one"
            )
        pending, self._pending = self._pending, None
        return pending

    def blocks(self, size: int, columns: Collection[str]) -> Iterator[Block]:
        for item in _guarded(self._restart(), self.name):
            block = _block(item, self.name)
            missing = [name for name in self.columns if name not in block]
            if missing:
                raise InvalidData("a batch lacks an array", where=self.name, got=sorted(block), expected=missing[0])
            count = common_length({name: len(values) for name, values in block.items()}, self.name)
            for start in range(0, count, size):
                yield {name: block[name][start : start + size] for name in self.columns if name in columns}

    def sha256(self) -> None:
        return None


def _guarded(items: Iterator[Any], name: str) -> Iterator[Any]:
    """The same items; what the stream itself raises becomes one clear line that says how far it got."""
    done = 0
    try:
        for item in items:
            yield item
            done += 1
    except ToolkitError:
        raise
    except Exception as exc:
        got = one_line(f"{type(exc).__name__}: {exc}", 200)
        raise InvalidData(f"the stream of samples failed after {done} batches", where=name, got=got) from exc


def _block(item: Any, where: str) -> Block:
    if isinstance(item, tuple) and len(item) == 2:
        inputs, labels = item
        return {**_block(inputs, where), LABELS: _column(labels, where)}
    if isinstance(item, Mapping):
        return {str(name): _column(values, where) for name, values in item.items()}
    return {ANONYMOUS: _column(item, where)}


def _column(values: Any, where: str) -> Column:
    if isinstance(values, list) and values and not np.isscalar(values[0]):
        return values
    array = np.asarray(values)
    if not array.ndim:
        got = f"{type(values).__name__} without a sample axis"
        raise InvalidData("not a batch", where=where, got=got, expected="arrays whose leading axis counts samples")
    numeric(array.dtype, where)
    return array
