"""What the things that a user names as models are: ONNX files, variants of bundles, sources, files of one engine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from toolkit.bundle.kind import is_bundle
from toolkit.bundle.reader import check_variant, open_bundle
from toolkit.errors import InvalidModel, NotApplicable
from toolkit.graph.facts import facts, require_runnable
from toolkit.preprocess import Preprocessing
from toolkit.providers.base import Provider
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

Kind = Literal["onnx", "source", "file"]
_FORMS = "a file or folder that exists, zoo:NAME, PACKAGE.MODULE:FACTORY or FILE.py:FACTORY"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model to measure.

    Attributes:
        name: what the report calls it.
        path: the file, or the text of the source.
        kind: "onnx"; "source", which only providers that open no ONNX can take; "file" of a kind that is left to the
            engine to judge.
        precision: of the file; "" where only the opened model can tell.
        inputs: None likewise.
        made_for: providers that a bundle's variant was lowered for; empty means any.
        sha256: of everything that opening it reads; "" until :mod:`toolkit.profiler.identity` filled it in.
        width: where the model lies on a sweep of its width; ``family`` is its name without that.
    """

    name: str
    path: str
    kind: Kind
    group: str = ""
    precision: str = ""
    inputs: tuple[TensorSpec, ...] | None = None
    size_bytes: int = 0
    made_for: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    sha256: str = ""
    width: int = 0
    family: str = ""

    def require_fit(self, target: Target, provider: Provider) -> None:
        """Check that this model is one for ``target``.

        Raises:
            NotApplicable: why it is not.
        """
        if self.kind == "source" and provider.accepts_onnx:
            raise NotApplicable(f"{provider.name} runs ONNX files", next_step="toolkit export makes one of this source")
        if self.kind == "onnx" and not provider.accepts_onnx:
            raise NotApplicable(f"{provider.name} opens sources, not ONNX files")
        if self.made_for and provider.name not in self.made_for:
            raise NotApplicable(f"this variant was made for {', '.join(self.made_for)}")
        if self.precision and not target.allows(self.precision):
            raise NotApplicable(f"the file is {self.precision}; the target takes {', '.join(target.precisions)}")
        if self.precision and self.precision not in provider.precisions:
            raise NotApplicable(f"the file is {self.precision}; {provider.name} runs {', '.join(provider.precisions)}")


def models(items: Sequence[str | os.PathLike[str] | Model]) -> list[Model]:
    """The models that ``items`` mean, with names that tell them apart; what is described already stays.

    Raises:
        FileProblem, InvalidModel, InvalidBundle: one of them cannot be read.
    """
    return _distinct(
        [model for item in items for model in ([item] if isinstance(item, Model) else _models(os.fspath(item)))]
    )


def _models(text: str) -> list[Model]:
    path = Path(text)
    if is_bundle(path):
        return _variants(text)
    if path.suffix == ".onnx":
        found = facts(path)
        require_runnable(found, path)
        return [
            Model(
                name=path.name,
                path=text,
                kind="onnx",
                precision=found.precision,
                inputs=found.inputs,
                size_bytes=found.size_bytes,
                preprocessing=_recorded(found.metadata, path),
            )
        ]
    if path.is_file() and path.suffix != ".pt2":
        return [Model(name=path.name, path=text, kind="file", size_bytes=path.stat().st_size)]
    _require_source(text)
    return [Model(name=text, path=text, kind="source")]


def _require_source(text: str) -> None:
    """Check that ``text`` can be a source, which only a worker opens: a misspelt file must not pass for one.

    Raises:
        InvalidModel: it is no path that exists, and has not the form of anything else.
    """
    place, colon, name = text.partition("?")[0].rpartition(":")
    named = bool(colon and place and name) and (Path(place).is_file() or not place.endswith(".py"))
    if not named and not any(Path(item).exists() for item in (text, text.partition("?")[0])):
        raise InvalidModel("no such model", where=text, expected=_FORMS)


def _recorded(metadata: Mapping[str, str], path: Path) -> Preprocessing | None:
    """The preprocessing that an export wrote into the file, without which images cannot be fed to it."""
    text = metadata.get("toolkit.preprocessing")
    return None if text is None else Preprocessing.from_json(text, where=path)


def _variants(text: str) -> list[Model]:
    bundle = open_bundle(text)
    found = []
    for variant in bundle.manifest.variants:
        check_variant(bundle, variant)
        path = bundle.model_file(variant)
        found.append(
            Model(
                name=f"{Path(text).stem}:{variant.name}",
                path=str(path),
                kind="onnx" if path.suffix == ".onnx" else "file",
                precision=variant.precision,
                inputs=bundle.manifest.inputs,
                size_bytes=sum(record.size_bytes for record in variant.files.values()),
                made_for=tuple(sorted({target.provider for target in variant.targets})),
                preprocessing=bundle.manifest.preprocessing,
            )
        )
    return found


def _distinct(found: Sequence[Model]) -> list[Model]:
    """Models whose names clash get their whole path for a name, and a number where even that is the same."""
    names = Counter(model.name for model in found)
    renamed = [msgspec.structs.replace(m, name=m.path) if names[m.name] > 1 else m for m in found]
    seen: Counter[str] = Counter()
    result = []
    for model in renamed:
        seen[model.name] += 1
        again = f"{model.name}#{seen[model.name]}" if seen[model.name] > 1 else model.name
        result.append(msgspec.structs.replace(model, name=again))
    return result
