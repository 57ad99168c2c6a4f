from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

from toolkit.errors import InvalidModel, UsageError  # noqa: E402
from toolkit.exporter.api import export  # noqa: E402
from toolkit.exporter.sources import open_source  # noqa: E402
from toolkit.exporter.sources.huggingface_images import image_preprocessing  # noqa: E402
from toolkit.graph.facts import facts  # noqa: E402
from toolkit.preprocess import CenterCrop, Layout, Normalize, Preprocessing, Resize, Scale  # noqa: E402

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert") / "tiny-bert"
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=40, max_position_embeddings=24, id2label={0: "bad", 1: "good"}, **TINY)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", *map(str, range(38))]))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]})
    )
    return folder


def test_a_text_model_brings_inputs_labels_task_and_tokenizer(bert: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    report = export(str(bert), None, output)
    assert [str(spec) for spec in report.inputs] == [
        "input_ids:int64[batch,seq]=0..39",
        "attention_mask:int64[batch,seq]=0..1",
        "token_type_ids:int64[batch,seq]=0..1",
    ]
    assert [str(spec) for spec in report.outputs] == ["logits:float32[batch,2]"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "vocab.txt", "tokenizer_config.json"}
    metadata = facts(output).metadata
    assert json.loads(metadata["toolkit.labels"]) == ["bad", "good"]
    assert metadata["toolkit.task"] == "text-classification" and metadata["toolkit.source"] == "tiny-bert"


def test_another_head_needs_weights_for_it(bert: Path) -> None:
    assert open_source(str(bert), task="feature-extraction").task == "feature-extraction"
    with pytest.raises(InvalidModel, match=r"no weights for a part of the model.*--task picks the head"):
        open_source(str(bert), task="question-answering")
    with pytest.raises(UsageError, match=r"unknown task; got text-clasification; expected 'text-classification'"):
        open_source(str(bert), task="text-clasification")


def test_folders_that_cannot_be_opened_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no readable config\.json in this folder"):
        open_source(str(tmp_path))
    config = {"architectures": ["MyOwnModel"], "auto_map": {"AutoModel": "code.MyOwnModel"}, "model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('this code was run')")
    with pytest.raises(
        UsageError, match=r"transformers has no such architecture; got MyOwnModel; the folder's own code"
    ):
        open_source(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    with pytest.raises(InvalidModel, match="transformers cannot open the folder") as caught:
        open_source(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_image_model_takes_its_processors_size(tmp_path: Path) -> None:
    config = transformers.ViTConfig(image_size=32, patch_size=16, num_channels=1, **TINY)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    write_processor(tmp_path, size={"height": 32, "width": 32}, image_mean=[0.5], image_std=[0.5])
    source = open_source(str(tmp_path))
    assert [str(spec) for spec in source.inputs or ()] == ["pixel_values:float32[batch,1,32,32]"]
    assert source.preprocessing is not None and set(source.files) == {"preprocessor_config.json"}
    assert source.labels == ()


def write_processor(folder: Path, **config: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


def steps(found: Preprocessing | None) -> tuple[object, ...]:
    assert found is not None
    return found.inputs[0].steps


def test_image_processors_become_preprocessing(tmp_path: Path) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    write_processor(
        tmp_path, size={"shortest_edge": 256}, resample=3, do_center_crop=True, crop_size=224, image_mean=mean,
        image_std=std, rescale_factor=0.5,
    )  # fmt: skip
    assert steps(image_preprocessing(tmp_path)[0]) == (
        Resize(shortest=256, filter="bicubic"),
        CenterCrop(224, 224),
        Layout("NHWC", "NCHW"),
        Scale(0.5),
        Normalize(mean, std),
    )
    write_processor(tmp_path, size={"shortest_edge": 224}, crop_pct=0.875, do_normalize=False, image_mean=mean)
    assert steps(image_preprocessing(tmp_path)[0])[:2] == (Resize(shortest=256), CenterCrop(224, 224))


def test_image_processors_that_do_more_are_not_half_converted(tmp_path: Path) -> None:
    write_processor(tmp_path, size={"shortest_edge": 256}, image_mean=[0.5], do_pad=True)
    found, notes = image_preprocessing(tmp_path)
    assert found is None and "do_pad" in notes[0]
    write_processor(tmp_path, size={"longest_edge": 256}, image_mean=[0.5])
    assert image_preprocessing(tmp_path)[0] is None
