"""Manifests and variants from what is known of a model file, without reading the file itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from toolkit.bundle.manifest import Manifest, Variant
from toolkit.bundle.writer import VariantSource
from toolkit.preprocess import Preprocessing
from toolkit.targets import Precision, Target
from toolkit.tensors import TensorSpec


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
    provenance: Mapping[str, Any] | None = None,
) -> Manifest:
    """A manifest without variants; ``metadata`` is the ONNX file's, whose ``toolkit.*`` keys are taken over."""
    preprocessing = metadata.get("toolkit.preprocessing")
    return Manifest(
        name=model.stem,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        task=metadata.get("toolkit.task", ""),
        labels=tuple(json.loads(metadata.get("toolkit.labels", "[]"))),
        preprocessing=None if preprocessing is None else Preprocessing.from_json(preprocessing),
        state=json.loads(metadata.get("toolkit.state", "{}")),
        provenance={"source": metadata.get("toolkit.source", ""), **(provenance or {})},
        licence=licence or metadata.get("toolkit.license", ""),
    )
