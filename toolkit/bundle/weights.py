"""Large weights of a bundle's models lie outside them, each once: variants that have the same ones share the file.

A model with large initializers becomes ``models/NAME.onnx`` beside ``models/HASH.data`` files; engines refuse ``..`` in
references to external data, so all such models lie in one folder. Weights that some variant brought already are
referred to where they are; the others go into one new file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from toolkit.errors import InvalidModel
from toolkit.files import sha256
from toolkit.onnxfile.check import check_model
from toolkit.onnxfile.split import Weight, large_weights, write_split
from toolkit.onnxfile.tensors import External

FOLDER = "models"
# Smaller ones stay in the graph: shapes and scales, which engines read at once.
SMALLEST_BYTES = 64 * 1024
# Engines map weights by pages.
_PAGE = 4096


class Stored(msgspec.Struct, frozen=True):
    """A model whose large weights were moved out: its file and those that hold weights, all in the bundle."""

    model: Path
    weights: tuple[Path, ...]


def can_share(model: Path) -> bool:
    """Whether ``model`` is an ONNX file with large initializers and all its external data in them."""
    if model.suffix != ".onnx":
        return False
    try:
        locations = set(check_model(model))
    except InvalidModel:
        return False  # the reader says so when it is opened
    large = large_weights(model, SMALLEST_BYTES)
    moved = {weight.file for weight in large}
    small = [weight for weight in large_weights(model, 0) if weight.size < SMALLEST_BYTES and weight.file != model]
    return bool(large) and not small and all(model.parent / location in moved for location in locations)


def store(bundle: Path, name: str, model: Path, others: Iterable[Path]) -> Stored:
    """Write ``model`` into the bundle folder as ``models/NAME.onnx``, sharing weights with the models ``others``."""
    folder = bundle / FOLDER
    folder.mkdir(exist_ok=True)
    known = _known(folder, others)
    weights = large_weights(model, SMALLEST_BYTES)
    digests = {weight.tag: weight.digest() for weight in weights}
    new = {digests[weight.tag]: weight for weight in weights if digests[weight.tag] not in known}
    known |= _write_data(folder, new)
    output = folder / f"{name}.onnx"
    places = {weight.tag: known[digests[weight.tag]] for weight in weights}
    write_split(model, output, places)
    return Stored(output, tuple(sorted({folder / place.location for place in places.values()})))


def _known(folder: Path, others: Iterable[Path]) -> dict[str, External]:
    """Where the weights of models in the folder are, by their hash."""
    found: dict[str, External] = {}
    for model in others:
        for weight in large_weights(model, SMALLEST_BYTES):
            if weight.file.parent == folder and weight.file != model:
                found.setdefault(weight.digest(), External(weight.file.name, weight.offset, weight.size))
    return found


def _write_data(folder: Path, weights: Mapping[str, Weight]) -> dict[str, External]:
    """Write weights into one file that is named by the hash of its content; each begins on a page of its own."""
    if not weights:
        return {}
    offsets: dict[str, int] = {}
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".weights.", delete=False) as output:
        try:
            for digest, weight in weights.items():
                output.write(bytes(-output.tell() % _PAGE))
                offsets[digest] = output.tell()
                weight.copy_to(output.file)  # type: ignore[arg-type]
            output.close()
            path = folder / f"{sha256(output.name)}.data"
            Path(output.name).replace(path)
        except BaseException:
            Path(output.name).unlink(missing_ok=True)
            raise
    path.chmod(0o644)
    return {digest: External(path.name, offset, weights[digest].size) for digest, offset in offsets.items()}
