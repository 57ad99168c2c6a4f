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
from toolkit.errors import EngineError, InvalidData, InvalidTarget, UsageError
from toolkit.files import existing_file, writable_output, write_atomic
from toolkit.providers.session import Session
from toolkit.tensors import Array


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="Arrays by input name, .npz.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where the outputs go, .npz.")
@click.option("--target", help="A name from 'toolkit targets', a TOML file, or PROVIDER[:DEVICE].  [default: auto]")
@click.option("--provider", help="The same as --target, under the name it has in Python.")
@click.option("--fallback", multiple=True, help="What is acceptable when the target is not there; may be repeated.")
@format_option
def run(
    model: Path, source: Path, output: Path, target: str | None, provider: str | None, fallback: tuple[str, ...],
    output_format: str,
) -> None:  # fmt: skip
    """Run MODEL (a bundle or an .onnx file) once on the arrays of an .npz file.

    Arrays named like the model's inputs are fed as they are; raw samples go
    through the preprocessing that was recorded with a bundle.
    """
    arrays = read_npz(source)
    writable_output(output)
    with _opened(model, target, provider, fallback) as session:
        outputs = session(_require_samples(_feeds(session, arrays), source))
        write_npz(output, outputs)
        shapes = {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in outputs.items()}
        result = {"model": str(model), "output": str(output), "provider": session.provider, "outputs": shapes}
        emit(result, output_format, lambda: _table(result))


def _opened(model: Path, target: str | None, provider: str | None, fallback: tuple[str, ...]) -> Session:
    from toolkit.runtime.loader import load

    if target is not None and provider is not None:
        raise UsageError("--target and --provider are the same", got=f"{target} and {provider}", expected="one of them")
    try:
        return load(model, target or provider or "auto", fallback=fallback)
    except InvalidTarget as exc:
        if provider is None or exc.where != "--target":
            raise
        raise InvalidTarget(exc.what, where="--provider", got=exc.got, expected=exc.expected) from exc
    except EngineError:
        _require_model(model)
        raise


def _require_model(model: Path) -> None:
    """Look at the file that an engine could not open, as the commands do that read graphs themselves.

    Raises:
        InvalidModel: the file is at fault, and how.
    """
    if model.suffix == ".onnx":
        try:
            from toolkit.graph.files import load_model
        except ImportError:  # running needs no more than an engine
            return
        load_model(model)


def _require_samples(feeds: dict[str, Array], source: Path) -> dict[str, Array]:
    """Engines answer nothing to nothing, some of them with an error of their own.

    Raises:
        InvalidData: all arrays that are fed have no rows.
    """
    lengths = [array.shape[0] for array in feeds.values() if array.ndim]
    if lengths and not any(lengths):
        raise InvalidData("holds no samples", where=source, got="arrays of length 0")
    return feeds


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
    if not zipfile.is_zipfile(path):
        raise InvalidData("not an .npz file, or a damaged one", where=path, expected="what numpy.savez writes")
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
