"""What ``toolkit profile`` takes beside models and targets: scenarios, sweeps, and models exported for a sweep."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import msgspec

from toolkit.cli.options import say
from toolkit.errors import UsageError
from toolkit.profiler.cases import Scenario
from toolkit.profiler.models import Model, models
from toolkit.profiler.planning import ALL
from toolkit.profiler.sweeps import WIDTH
from toolkit.providers import registry
from toolkit.targets import Target

if TYPE_CHECKING:
    Command = Callable[..., Any]


def scenario_options(command: Command) -> Command:
    """``--scenario``, ``--streams``, ``--sweep`` and ``--machine``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--scenario", "scenarios", multiple=True, default=("single-stream",), show_default=True, metavar="NAMES",
        help="single-stream, multi-stream (several calls at the same time), offline (the best batch); one or more.",
    ),
    click.option(
        "--streams", type=click.IntRange(min=1), default=4, show_default=True, help="Calls at the same time."
    ),
    click.option(
        "--sweep", "sweeps", multiple=True, metavar="NAME=SIZES",
        help="batch=1,2,4, threads=1,2, width=64,128 (of a source) or a dim: seq=16,32; may be repeated.",
    ),
    click.option(
        "--machine", type=click.Path(path_type=Path), help="machine.toml: what the machine costs and draws."
    ),
)  # fmt: skip


def parse_scenarios(texts: Sequence[str]) -> tuple[Scenario, ...]:
    """Names in ``a,b`` and ``c``, each once; the profiler knows which there are."""
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(cast("Scenario", name) for name in dict.fromkeys(names))


def parse_sweeps(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Sizes by variable in ``batch=1,2,4``.

    Raises:
        UsageError: one has another form, or a variable stands there twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        parts = [part.strip() for part in listed.split(",")]
        if not name or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise UsageError("cannot read this sweep", where="--sweep", got=repr(text), expected="e.g. batch=1,2,4")
        if name.strip() in found:
            raise UsageError("this variable is swept already", where="--sweep", got=name.strip())
        found[name.strip()] = tuple(dict.fromkeys(int(part) for part in parts))
    return found


@contextmanager
def with_exports(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """``options`` of :func:`toolkit.profile`; beside each source its ONNX file at each width that is swept, for targets
    that run ONNX.

    The files last as long as the block.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-widths-") as folder:
        found: list[str | Model] = list(options["models"])
        widths = options["sweeps"].get(WIDTH, ())
        if widths and any(_runs_onnx(target) for target in options["targets"]):
            found += [
                _exported(model, width, Path(folder) / f"{index}-{width}.onnx")
                for index, model in enumerate(models(options["models"]))
                if model.kind == "source"
                for width in widths
            ]
        yield {**options, "models": found}


def _runs_onnx(target: str | Target) -> bool:
    found = target if isinstance(target, Target) or target == ALL else registry.target(target)
    return not isinstance(found, Target) or registry.provider(found.provider).accepts_onnx


def _exported(source: Model, width: int, path: Path) -> Model:
    from toolkit.exporter.api import export

    say(f"exporting {source.name} at {WIDTH} {width}")
    export(f"{source.path}?{WIDTH}={width}", output=path)
    return msgspec.structs.replace(
        models([path])[0], name=f"{source.name}?{WIDTH}={width}.onnx", width=width, family=f"{source.name}.onnx",
        group=f"{WIDTH}={width}",
    )  # fmt: skip
