"""A metric of the user's own: a function of everything, or a class that adds up batch after batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from toolkit.data import Batch
from toolkit.errors import UsageError
from toolkit.evaluator.report import Findings
from toolkit.functions import load_function
from toolkit.tensors import Array


@final
class Custom:
    """Calls ``function(outputs, labels)`` once with the outputs of all samples, which it therefore keeps in memory.

    A class is made once, its ``update(outputs, labels)`` called for each batch and its ``result()`` at the end: nothing
    is kept. Both give a number, or numbers by name. ``labels`` is None where the data have none.
    """

    def __init__(self, metric: str | Callable[..., Any]) -> None:
        chosen = load_function(metric, "--metric") if isinstance(metric, str) else metric
        self.name = getattr(chosen, "__name__", "metric")
        self._streaming: Any = _call(chosen, self.name) if inspect.isclass(chosen) else None
        self._function = chosen
        self._outputs: dict[str, list[Array]] = {}
        self._labels: list[Array] = []

    def update(self, outputs: Mapping[str, Array], batch: Batch) -> None:
        if self._streaming is not None:
            _call(self._streaming.update, self.name, dict(outputs), batch.labels)
            return
        for name, values in outputs.items():
            self._outputs.setdefault(name, []).append(values)
        if batch.labels is not None:
            self._labels.append(batch.labels)

    def result(self) -> Findings:
        if self._streaming is not None:
            return Findings(metrics=self._numbers(_call(self._streaming.result, self.name)))
        outputs = {name: np.concatenate(values) for name, values in self._outputs.items()}
        labels = np.concatenate(self._labels) if self._labels else None
        return Findings(metrics=self._numbers(_call(self._function, self.name, outputs, labels)))

    def _numbers(self, value: Any) -> dict[str, float]:
        named = value if isinstance(value, Mapping) else {self.name: value}
        try:
            return {str(name): float(number) for name, number in named.items()}
        except (TypeError, ValueError) as exc:
            got = type(value).__name__
            raise UsageError("the metric gives no numbers", where=f"--metric {self.name}", got=got) from exc


def _call(function: Callable[..., Any], name: str, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as exc:  # whatever the user's code raises
        raise UsageError(
            "the metric raised an error", where=f"--metric {name}", got=f"{type(exc).__name__}: {exc}",
            expected="a function (outputs, labels), or a class with update(outputs, labels) and result()",
        ) from exc  # fmt: skip
