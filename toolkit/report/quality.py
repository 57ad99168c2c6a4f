"""Quality of a model on a target in words, and which way is better."""

from __future__ import annotations

from toolkit.profiler.records import AccuracyRecord

# Metrics of errors; of all others, of a user's own too, more is better.
_ERRORS = ("perplexity", "nats", "loss", "error", "mse", "rmse", "mae")


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of ``metric`` is the better one, by its name."""
    return any(part in metric.lower() for part in _ERRORS)


def quality(record: AccuracyRecord) -> str:
    """``accuracy 0.9740 [0.9610, 0.9830]``: four digits, since a drop of a tenth of a point can matter."""
    return f"{record.metric.replace('_', ' ')} {value_with_interval(record)}"


def value_with_interval(record: AccuracyRecord) -> str:
    """``0.9740 [0.9610, 0.9830]``."""
    bounds = "" if record.interval is None else f" [{four(record.interval[0])}, {four(record.interval[1])}]"
    return f"{four(record.value)}{bounds}"


def four(value: float) -> str:
    """Four significant digits, zeros among them."""
    return f"{value:#.4g}".removesuffix(".")
