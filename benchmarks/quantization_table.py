"""The benchmark's table, 80 columns wide, and what it all comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

WIDTH = 80
OURS, FLOAT = "toolkit", "float"
FLOOR = 0.97
"""Times the best peer's speed; below it a model is listed as lost."""

Row = dict[str, Any]
Block = dict[str, Any]


def block_lines(block: Block) -> Iterator[str]:
    """One model on one provider."""
    kind = "accuracy %" if block["labelled"] else "SNR dB"
    yield f"{block['model']} on {block['provider']}  ({block['rule']})"
    yield f"{'variant':<17}{'time s':>7}{'peak MB':>8}{'MB':>7}{kind:>11}{'p50 ms':>9}  {'speed [99 %]':<19}"
    for row in block["rows"]:
        yield _row_line(row)
    again = block.get("again")
    if again:
        yield _again_line(again)
    yield ""


def _row_line(row: Row) -> str:
    start = f"{row['name']:<17}{_number(row.get('seconds'), 1):>7}{_number(row.get('peak_mb'), 0):>8}"
    if row.get("error"):
        return f"{start} {row['error']}"[:WIDTH]
    quality = _number(row.get("quality"), 2) + ("" if row.get("within", True) else "!")
    speed = _speed(row.get("speed"), row.get("interval")) or row.get("unraced", "")
    return (
        f"{start}{_number(row.get('size_mb'), 2):>7}{quality:>11}{_number(row.get('p50_ms'), 3):>9}  {speed:<19}"
    ).rstrip()


def _again_line(again: dict[str, Any]) -> str:
    parts = [f"again: {OURS} is {_speed(again['vs_float'], again['vs_float_interval'])} x float"]
    if again["peer"] != FLOAT:
        parts.append(f"{_speed(again['vs_peer'], again['vs_peer_interval'])} x {again['peer']}")
    return "; ".join(parts)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _speed(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


# summary


def summary_lines(blocks: Sequence[Block]) -> Iterator[str]:
    """Geometric means, worst cases, what was lost, and what ended outside its budget."""
    scored = [block for block in blocks if block.get("again")]
    providers = tuple(dict.fromkeys(block["provider"] for block in scored))
    yield f"speed of {OURS} over the best peer within budget (float included), geometric means"
    yield f"{'':<17}{'all':>14}{'transformers':>16}{'over float':>14}"
    for provider in (*providers, "all"):
        own = [block for block in scored if provider in (block["provider"], "all")]
        chosen = [block for block in own if block["transformer"]]
        yield f"{provider:<17}{_mean(own):>14}{_mean(chosen):>16}{_mean(own, 'vs_float'):>14}"
    yield ""
    yield "per model, the worse of the providers"
    for model in dict.fromkeys(block["model"] for block in scored):
        worst = min((block for block in scored if block["model"] == model), key=_score)
        yield f"  {model:<20}{_score(worst):>6.2f}  {worst['provider']:<10}against {worst['again']['peer']}"
    yield ""
    yield from _listed("lost (below 0.97 of the best peer)", (b for b in scored if _score(b) < FLOOR))
    yield from _listed("slower than float (interval below 0.98)", (b for b in scored if _slower(b)))
    yield from _listed(f"{OURS} failed (float stands in)", (b for b in blocks if b["ours_failed"]))
    yield from _listed(f"{OURS} ended outside its budget", (b for b in blocks if b["ours_outside"]))


def _score(block: Block) -> float:
    return float(block["again"]["vs_peer"])


def _slower(block: Block) -> bool:
    interval = block["again"]["vs_float_interval"]
    return bool(interval) and interval[0] < 0.98


def _mean(blocks: Sequence[Block], key: str = "vs_peer") -> str:
    logs = [math.log(block["again"][key]) for block in blocks]
    return f"{math.exp(sum(logs) / len(logs)):.3f} ({len(logs)})" if logs else "-"


def _listed(title: str, blocks: Iterable[Block]) -> Iterator[str]:
    found = list(blocks)
    yield f"{title}: {'none' if not found else ''}".rstrip()
    for block in found:
        again = block.get("again") or {"vs_peer": float("nan"), "peer": "?"}
        yield f"  {block['model']} on {block['provider']}: {again['vs_peer']:.2f} of {again['peer']}"
