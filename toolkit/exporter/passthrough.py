"""An ONNX file as a source: read, brought to the wanted opset, written, and compared with the original."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import UsageError
from toolkit.exporter.report import Attempt, ExportReport
from toolkit.exporter.sources import Source
from toolkit.files import atomic_folder, sha256
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model, save_model
from toolkit.graph.opset import upgrade
from toolkit.verifier.api import verify

_STRATEGY = "graph as it is"


def copy_graph(source: Source, path: Path, opset: int | None) -> ExportReport:
    """Write ``source.onnx`` to ``path``.

    Raises:
        UsageError: the source is the output.
        ParityError: what was written computes something else.
    """
    assert source.onnx is not None
    if path.exists() and path.samefile(source.onnx):
        raise UsageError("source and output are the same file", where=path)
    model, notes = load_model(source.onnx), source.notes
    if opset is not None:
        model, more = upgrade(model, opset)
        notes += more
    with atomic_folder(path) as scratch:
        file = scratch / path.name
        save_model(model, file)
        checked = verify(source.onnx, file).require()
        known = facts(file)
        digest = sha256(file)
    return ExportReport(
        output=str(path),
        source=source.name,
        strategy=_STRATEGY,
        attempts=(Attempt(_STRATEGY, ""),),
        inputs=known.inputs,
        outputs=known.outputs,
        dynamic_dims=known.dynamic_dims,
        opset=known.opset,
        parameters=known.parameters,
        size_bytes=known.size_bytes,
        precision=known.precision,
        reference=source.name,
        tolerance=f"{checked.tolerance.name}: {checked.tolerance.source}",
        engine=checked.target,
        cases=(),
        files=(),
        notes=(*notes, f"compared with the original in {len(checked.cases)} cases"),
        sha256=digest,
    )
