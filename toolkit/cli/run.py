"""``toolkit run``: a model on the arrays of an .npz file."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from toolkit.cli.options import emit, format_option
from toolkit.data.source import RESERVED
from toolkit.errors import InvalidData
from toolkit.files import existing_file, writable_output, write_atomic
from toolkit.providers.base import Session
from toolkit.tensors import Array


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="Arrays by input name, .npz.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where the outputs go, .npz.")
@click.option("--target", "--provider", "target", default="auto", show_default=True, help="Target or provider.")
@click.option("--fallback", multiple=True, help="What is acceptable when the target is not there; may be repeated.")
@format_option
def run(model: Path, source: Path, output: Path, target: str, fallback: tuple[str, ...], output_format: str) -> None:
    """Run MODEL (a bundle or an .onnx file) once on the arrays of an .npz file.

    Arrays named like the model's inputs are fed as they are; raw samples go
    through the preprocessing that was recorded with a bundle.
    """
    from toolkit.runtime.loader import load

    arrays = read_npz(source)
    writable_output(output)
    with load(model, target, fallback=fallback) as session:
        outputs = session(_feeds(session, arrays))
        write_npz(output, outputs)
        shapes = {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in outputs.items()}
        result = {"model": str(model), "output": str(output), "provider": session.provider, "outputs": shapes}
        emit(result, output_format, lambda: _table(result))


def _feeds(session: Session, arrays: dict[str, Array]) -> dict[str, Array]:
    names = {spec.name for spec in session.inputs}
    if names <= set(arrays) or session.preprocessing is None:
        return {name: array for name, array in arrays.items() if name in names or name not in RESERVED}
    return session.preprocess(arrays)


def _table(result: Mapping[str, object]) -> str:
    shapes = result["outputs"]
    assert isinstance(shapes, dict)
    lines = [f"{name}: {facts['dtype']}{facts['shape']}" for name, facts in shapes.items()]
    return "\n".join([f"ran on {result['provider']}, wrote {result['output']}", *lines])


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an .npz file; never unpickles.

    Raises:
        InvalidData: not an .npz file, or one with pickled objects in it.
    """
    existing_file(path, ".npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, AttributeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as exc:
        raise InvalidData("not an .npz file of plain arrays", where=path, got=exc) from exc


def write_npz(path: Path, arrays: dict[str, Array]) -> None:
    """Write arrays as .npz, whole or not at all; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy types its own allow_pickle keyword into **kwds
    write_atomic(path, buffer.getvalue())
