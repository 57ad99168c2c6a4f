"""Options that several commands share, and how results are printed: stdout for the result, stderr for all else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from toolkit.cli.printing import put
from toolkit.cli.printing import say as say
from toolkit.tensors import parse_dims

SCHEMA_VERSION = 1

format_option = click.option(
    "--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="How to print the result.",
)  # fmt: skip
target_option = click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="A name from 'toolkit targets', a TOML file, or PROVIDER[:DEVICE].",
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the result is written, whole or not at all.",
)
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Samples: .npz, a folder of .npy or images, or IDX files (docs/data.md).",
)


def _dims(_: click.Context, __: click.Parameter, items: Iterable[str]) -> dict[str, int]:
    return parse_dims(items)


dim_option = click.option(
    "--dim", "dims", multiple=True, callback=_dims, metavar="NAME=SIZE", help="Size of a dynamic dim; may be repeated."
)


def emit(result: Any, output_format: str, table: Callable[[], str]) -> None:
    """Print ``result`` as JSON with a ``schema_version``, or what ``table`` renders."""
    if output_format == "json":
        put(json.dumps({"schema_version": SCHEMA_VERSION, **builtins(result)}, indent=2))
    else:
        put(table())


def builtins(value: Any) -> Any:
    """Plain JSON data of structs, dataclasses, numpy scalars and arrays, paths; NaN and infinities become null."""
    plain = msgspec.to_builtins(value, enc_hook=_encode, str_keys=True)
    return _finite(plain)


def _encode(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr; yields ``advance(steps=1, description=None)``. Silent when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(steps: int = 1, description: str | None = None) -> None:
            bar.update(task, advance=steps, description=description)

        yield advance
