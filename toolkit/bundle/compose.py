"""Manifests and variants from what is known of a model file, without reading the file itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from toolkit.bundle.manifest import Manifest, Provenance, Variant
from toolkit.bundle.writer import VariantSource
from toolkit.files import sha256
from toolkit.installed import version
from toolkit.preprocess import Preprocessing
from toolkit.targets import Precision, Target
from toolkit.tensors import TensorSpec

# What may have had a hand in a model file.
_PACKAGES = ("onnx-toolkit", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "nncf")


def variant_of(model: Path, precision: str, targets: tuple[Target, ...], name: str | None = None) -> VariantSource:
    """A variant for ``targets`` from one model file; external data is looked for beside it as ``NAME.onnx.data``."""
    data = model.with_name(f"{model.name}.data")
    variant = Variant(
        name=name or f"{precision}-{targets[0].provider}",
        model=model.name,
        precision=cast(Precision, precision),
        targets=targets,
        files={},
    )
    return VariantSource(variant, model, (data,) if data.is_file() else ())


def bundle_of(
    model: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    metadata: Mapping[str, str],
    licence: str = "",
    provenance: Provenance | None = None,
    origin: Path | None = None,
) -> Manifest:
    """A manifest without variants; ``metadata`` is the ONNX file's, whose ``toolkit.*`` keys are taken over.

    ``origin`` is the file that ``model`` was made from, where it is not the file itself.
    """
    preprocessing = metadata.get("toolkit.preprocessing")
    return Manifest(
        name=model.stem,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        task=metadata.get("toolkit.task", ""),
        labels=tuple(json.loads(metadata.get("toolkit.labels", "[]"))),
        preprocessing=None if preprocessing is None else Preprocessing.from_json(preprocessing),
        state=json.loads(metadata.get("toolkit.state", "{}")),
        provenance=provenance or provenance_of(origin or model, metadata),
        licence=licence or metadata.get("toolkit.license", ""),
    )


def provenance_of(model: Path, metadata: Mapping[str, str]) -> Provenance:
    """Where a model file comes from: what it records of itself, its hash, and the packages that are here now."""
    recorded = metadata.get("toolkit.quantization", "")
    return Provenance(
        source=metadata.get("toolkit.source", ""),
        source_sha256=sha256(model) if model.is_file() else "",
        versions={name: found for name in _PACKAGES if (found := version(name)) is not None},
        calibration=json.loads(recorded) if recorded else {},
    )
