"""A folder in Hugging Face's layout, opened offline, with the library's own classes only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import nn

from toolkit.errors import InvalidModel, MissingDependency, UsageError, one_line
from toolkit.exporter.sources.huggingface_images import image_preprocessing, read_json
from toolkit.exporter.sources.huggingface_inputs import infer_inputs
from toolkit.exporter.sources.source import Source
from toolkit.tensors import nearest

# task: the class that gives a model the head for it. Names as on the hub; source: transformers' pipelines.
TASKS = {
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "depth-estimation": "AutoModelForDepthEstimation",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "audio-classification": "AutoModelForAudioClassification",
    "automatic-speech-recognition": "AutoModelForCTC",
    "feature-extraction": "AutoModel",
}  # fmt: skip
# Endings of class names, most specific first, and the task they are for.
_HEADS = {
    "ForImageClassification": "image-classification", "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification", "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask", "ForCausalLM": "text-generation", "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation", "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "semantic-segmentation", "ForDepthEstimation": "depth-estimation",
    "ForAudioClassification": "audio-classification", "ForCTC": "automatic-speech-recognition",
}  # fmt: skip
# A quarter of a second at 16 kHz: less leaves no frame after the convolutions that speech models begin with.
_SAMPLES = 4000
_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def open_folder(text: str, request: Any) -> Source:
    """Open the model with the weights in the folder; code in it is never run.

    Raises:
        MissingDependency: transformers is not installed.
        UsageError: no such layout, an unknown task, an architecture that transformers does not have.
        InvalidModel: the weights are missing, or do not fill the model.
    """
    folder = Path(text)
    described = read_json(folder / "config.json")
    if not described:
        raise UsageError(
            "no readable config.json in this folder", where=folder, expected="a folder in Hugging Face's layout"
        )
    transformers = _import_transformers()
    cls, task = _model_class(transformers, described, request.task, folder)
    module, notes = _load(transformers, cls, folder)
    files = {name: folder / name for name in _FILES if (folder / name).is_file()}
    preprocessing, more = image_preprocessing(folder)
    return Source(
        name=folder.resolve().name,
        module=module,
        inputs=infer_inputs(module, folder),
        dims={"samples": _SAMPLES},
        files=files,
        preprocessing=preprocessing,
        labels=_labels(described),
        task=task,
        license="",
        notes=notes + more,
    )


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as exc:
        raise MissingDependency.of("transformers", "zoo", "opening a Hugging Face folder") from exc
    return transformers


def _model_class(transformers: Any, described: Any, task: str, folder: Path) -> tuple[Any, str]:
    architectures = described.get("architectures") or []
    if task:
        if task not in TASKS:
            raise UsageError("unknown task", where="--task", got=task, expected=nearest(task, TASKS))
        return getattr(transformers, TASKS[task]), task
    if not architectures:
        raise UsageError("config.json names no architecture", where=folder, next_step=f"--task {'|'.join(TASKS)}")
    name = str(architectures[0])
    cls = getattr(transformers, name, None)
    if cls is None or not isinstance(cls, type):
        own = "the folder's own code is not run; " if "auto_map" in described else ""
        raise UsageError(
            "transformers has no such architecture", where=folder, got=name,
            next_step=f"{own}write a factory file that builds it: FILE.py:FACTORY",
        )  # fmt: skip
    return cls, next((found for ending, found in _HEADS.items() if name.endswith(ending)), "feature-extraction")


def _load(transformers: Any, cls: Any, folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    # The eager form of attention is the one whose graph engines recognise; models that lack the choice do without.
    for attention in ({"attn_implementation": "eager"}, {}):
        try:
            module, found = cls.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True, **attention
            )
            break
        except (OSError, KeyError, RuntimeError) as exc:
            raise InvalidModel("transformers cannot open the folder", where=folder, got=one_line(exc, 240)) from exc
        except ValueError as exc:
            if not attention or "attn" not in str(exc):
                raise InvalidModel("transformers cannot open the folder", where=folder, got=one_line(exc, 240)) from exc
    missing = sorted(found.get("missing_keys", ()))
    if missing:
        raise InvalidModel(
            "the folder has no weights for a part of the model", where=folder, got=", ".join(missing[:3]),
            next_step="--task picks the head that the weights are for",
        )  # fmt: skip
    for part in module.modules():  # encoders and decoders have configurations of their own
        if hasattr(part, "config"):
            part.config.use_cache = False
    unused = sorted(found.get("unexpected_keys", ()))
    notes = (f"weights that this model does not use: {', '.join(unused[:3])}",) if unused else ()
    return cast("nn.Module", module.eval()), notes


def _labels(described: Any) -> tuple[str, ...]:
    names = described.get("id2label") or {}
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    return () if all(label == f"LABEL_{index}" for index, label in enumerate(labels)) else labels
