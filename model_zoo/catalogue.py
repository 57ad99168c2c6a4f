"""The table of models. Shapes name their dynamic dims; ``values`` bounds what a random input may hold."""

from __future__ import annotations

from typing import Any

from toolkit.preprocess import (
    CenterCrop,
    InputSteps,
    Layout,
    Mask,
    Normalize,
    Preprocessing,
    Reshape,
    Resize,
    Scale,
    Step,
    Tokenize,
)
from toolkit.tensors import TensorSpec

from .entry import Recipe, ZooEntry

DIGIT_LABELS = tuple("0123456789")
DIGITS = "scikit-learn digits (1797 images, 8×8, 0–16); BSD-3, UCI ML hand-written digits"
MNIST = "MNIST or Fashion-MNIST, IDX files from a local path"
IMAGENET = "ImageNet-1k, images from a local folder"
SPEECH = "Speech Commands, MFCC features from a local .npz"
SENTENCES = "labelled texts from a local .npz"
TEXT = "texts from a local .npz"
RANDOM = "random weights unless --weights is given"


def _image(name: str, *steps: Step) -> Preprocessing:
    """Raw data hold ``image``; the steps make input ``name`` of it."""
    return Preprocessing((InputSteps(name, steps, source="image"),))


def _imagenet(shortest: int, mean: tuple[float, ...], std: tuple[float, ...], **resize: Any) -> Preprocessing:
    steps = (
        Resize(shortest=shortest, **resize),
        CenterCrop(224, 224),
        Layout("NHWC", "NCHW"),
        Scale(1 / 255),
        Normalize(mean, std),
    )
    return _image("pixel_values", *steps)


def _text(*, mask: bool) -> Preprocessing:
    """Raw data hold ``text``; every byte is a token, 0 fills up."""
    tokens = Tokenize("bytes", length=128) if mask else Tokenize("bytes")
    ids = InputSteps("input_ids", (tokens,), source="text")
    return Preprocessing((ids, InputSteps("attention_mask", (tokens, Mask()), source="text")) if mask else (ids,))


HALVES = (0.5, 0.5, 0.5)
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLANES = TensorSpec("pixel_values", "float32", ("batch", 3, 224, 224))


def _ids(vocabulary: int) -> TensorSpec:
    return TensorSpec("input_ids", "int64", ("batch", "seq"), (0, vocabulary - 1))


def _masked_ids(vocabulary: int) -> tuple[TensorSpec, ...]:
    return _ids(vocabulary), TensorSpec("attention_mask", "int64", ("batch", "seq"), (0, 1))


SMALL = (
    ZooEntry(
        name="fcnn_digits", family="FCNN", description="64-128-64-10, 8×8 digits",
        module="fcnn", factory="fcnn", arguments={"widths": (64, 128, 64, 10)},
        inputs=(TensorSpec("pixel_values", "float32", ("batch", 64)),),
        preprocessing=_image("pixel_values", Reshape((64,)), Scale(1 / 16)),
        labels=DIGIT_LABELS, task="image-classification", dataset=DIGITS, parameters=17_226,
        recipe=Recipe(epochs=60, learning_rate=3e-3, noise=0.15, threads=1),
    ),
    ZooEntry(
        name="cnn_digits", family="CNN", description="two convolution blocks, 8×8 digits",
        module="cnn", factory="cnn", arguments={"channels": (32, 64), "classes": 10},
        inputs=(TensorSpec("pixel_values", "float32", ("batch", 1, 8, 8)),),
        preprocessing=_image("pixel_values", Layout("NHW", "NCHW"), Scale(1 / 16)),
        labels=DIGIT_LABELS, task="image-classification", dataset=DIGITS, parameters=19_562,
        recipe=Recipe(epochs=30, learning_rate=5e-3, noise=0.15, threads=1),
    ),
    ZooEntry(
        name="rnn_digits", family="RNN", description="LSTM over the 8 rows of a digit",
        module="rnn", factory="rnn", arguments={"cell": "lstm", "width": 8, "hidden": 64, "layers": 1, "classes": 10},
        inputs=(TensorSpec("features", "float32", ("batch", "time", 8)),),
        preprocessing=_image("features", Scale(1 / 16)),
        labels=DIGIT_LABELS, task="image-classification", dataset=DIGITS, parameters=19_594,
        recipe=Recipe(epochs=60, learning_rate=5e-3, noise=0.15, threads=1),
    ),
    ZooEntry(
        name="gru_digits", family="RNN", description="GRU over the 8 rows of a digit",
        module="rnn", factory="rnn", arguments={"cell": "gru", "width": 8, "hidden": 64, "layers": 1, "classes": 10},
        inputs=(TensorSpec("features", "float32", ("batch", "time", 8)),),
        preprocessing=_image("features", Scale(1 / 16)),
        labels=DIGIT_LABELS, task="image-classification", dataset=DIGITS, parameters=14_858,
        recipe=Recipe(epochs=60, learning_rate=5e-3, noise=0.15, threads=1),
    ),
    ZooEntry(
        name="transformer_digits", family="Transformer", description="16 patches of 2×2, 8×8 digits",
        module="transformer", factory="patch_classifier",
        arguments={"side": 8, "patch": 2, "width": 64, "depth": 2, "heads": 4, "classes": 10},
        inputs=(TensorSpec("pixel_values", "float32", ("batch", 1, 8, 8)),),
        preprocessing=_image("pixel_values", Layout("NHW", "NCHW"), Scale(1 / 16)),
        labels=DIGIT_LABELS, task="image-classification", dataset=DIGITS, parameters=102_090,
        recipe=Recipe(epochs=30, batch_size=128, learning_rate=3e-3, noise=0.15, threads=1),
    ),
    ZooEntry(
        name="fcnn_mnist", family="FCNN", description="784-256-128-10, 28×28 images",
        module="fcnn", factory="fcnn", arguments={"widths": (784, 256, 128, 10)},
        inputs=(TensorSpec("pixel_values", "float32", ("batch", 784)),),
        preprocessing=_image("pixel_values", Reshape((784,)), Scale(1 / 255)),
        labels=DIGIT_LABELS, task="image-classification", dataset=MNIST, parameters=235_146,
        recipe=Recipe(epochs=10, batch_size=128),
    ),
    ZooEntry(
        name="cnn_mnist", family="CNN", description="three convolution blocks, 28×28 images",
        module="cnn", factory="cnn", arguments={"channels": (32, 64, 128), "classes": 10},
        inputs=(TensorSpec("pixel_values", "float32", ("batch", 1, 28, 28)),),
        preprocessing=_image("pixel_values", Layout("NHW", "NCHW"), Scale(1 / 255)),
        labels=DIGIT_LABELS, task="image-classification", dataset=MNIST, parameters=94_186,
        recipe=Recipe(epochs=4, batch_size=128, learning_rate=2e-3),
    ),
    ZooEntry(
        name="lstm_speech", family="RNN", description="three layers over MFCC frames",
        module="rnn", factory="rnn", arguments={"cell": "lstm", "width": 12, "hidden": 64, "layers": 3, "classes": 35},
        inputs=(TensorSpec("features", "float32", ("batch", "time", 12)),),
        task="audio-classification", dataset=SPEECH, parameters=88_803,
        recipe=Recipe(epochs=20, learning_rate=2e-3),
    ),
    ZooEntry(
        name="gru_speech", family="RNN", description="three layers over MFCC frames",
        module="rnn", factory="rnn", arguments={"cell": "gru", "width": 12, "hidden": 64, "layers": 3, "classes": 35},
        inputs=(TensorSpec("features", "float32", ("batch", "time", 12)),),
        task="audio-classification", dataset=SPEECH, parameters=67_171,
        recipe=Recipe(epochs=20, learning_rate=2e-3),
    ),
    ZooEntry(
        name="text_classifier", family="Transformer", description="encoder over bytes of a text, to 512",
        module="transformer", factory="text_classifier",
        arguments={"vocabulary": 256, "longest": 512, "width": 128, "depth": 2, "heads": 4, "classes": 2},
        inputs=_masked_ids(256), preprocessing=_text(mask=True),
        task="text-classification", dataset=SENTENCES, parameters=495_362,
        recipe=Recipe(epochs=6),
    ),
    ZooEntry(
        name="causal_lm", family="Transformer", description="decoder over bytes of a text, to 512",
        module="transformer", factory="causal_language_model",
        arguments={"vocabulary": 256, "longest": 512, "width": 128, "depth": 4, "heads": 4},
        inputs=(_ids(256),), preprocessing=_text(mask=False),
        task="text-generation", dataset=TEXT, parameters=891_648,
        recipe=Recipe(epochs=5, batch_size=32),
    ),
)  # fmt: skip

REAL_SIZE = (
    ZooEntry(
        name="resnet18", family="CNN", description=f"ResNet-18; {RANDOM}",
        module="architectures", factory="resnet",
        arguments={"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
        inputs=(PLANES,), preprocessing=_imagenet(256, PHOTO_MEAN, PHOTO_STD, filter="bicubic"),
        task="image-classification", dataset=IMAGENET, parameters=11_689_512,
    ),
    ZooEntry(
        name="resnet50", family="CNN", description=f"ResNet-50; {RANDOM}",
        module="architectures", factory="resnet", arguments={},
        inputs=(PLANES,), preprocessing=_imagenet(256, PHOTO_MEAN, PHOTO_STD, filter="bicubic"),
        task="image-classification", dataset=IMAGENET, parameters=25_557_032,
    ),
    ZooEntry(
        name="mobilenet_v2", family="CNN", description=f"MobileNetV2 1.0; {RANDOM}",
        module="architectures", factory="mobilenet_v2", arguments={},
        inputs=(PLANES,), preprocessing=_imagenet(256, HALVES, HALVES),
        task="image-classification", dataset=IMAGENET, parameters=3_506_153,
    ),
    ZooEntry(
        name="convnext_tiny", family="CNN", description=f"ConvNeXt tiny; {RANDOM}",
        module="architectures", factory="convnext", arguments={},
        inputs=(PLANES,), preprocessing=_imagenet(256, PHOTO_MEAN, PHOTO_STD, filter="bicubic"),
        task="image-classification", dataset=IMAGENET, parameters=28_589_128,
    ),
    ZooEntry(
        name="vit_s16", family="Transformer", description=f"ViT small, patches of 16; {RANDOM}",
        module="architectures", factory="vit",
        arguments={"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536},
        inputs=(PLANES,), preprocessing=_imagenet(224, HALVES, HALVES),
        task="image-classification", dataset=IMAGENET, parameters=22_050_664,
    ),
    ZooEntry(
        name="vit_b16", family="Transformer", description=f"ViT base, patches of 16; {RANDOM}",
        module="architectures", factory="vit", arguments={},
        inputs=(PLANES,), preprocessing=_imagenet(224, HALVES, HALVES),
        task="image-classification", dataset=IMAGENET, parameters=86_567_656,
    ),
    ZooEntry(
        name="vit_h14", family="Transformer", description=f"ViT huge, patches of 14, 2.5 GB; {RANDOM}",
        module="architectures", factory="vit",
        arguments={
            "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120,
            "patch_size": 14,
        },
        inputs=(PLANES,), preprocessing=_imagenet(224, HALVES, HALVES),
        task="image-classification", dataset=IMAGENET, parameters=632_045_800,
    ),
    ZooEntry(
        name="bert_base", family="Transformer", description=f"BERT base, two classes; {RANDOM}",
        module="architectures", factory="bert", arguments={}, inputs=_masked_ids(30_522),
        task="text-classification", dataset=SENTENCES, parameters=109_483_778,
    ),
    ZooEntry(
        name="bert_6layer", family="Transformer", description=f"BERT with 6 layers, two classes; {RANDOM}",
        module="architectures", factory="bert", arguments={"num_hidden_layers": 6}, inputs=_masked_ids(30_522),
        task="text-classification", dataset=SENTENCES, parameters=66_956_546,
    ),
    ZooEntry(
        name="distilbert", family="Transformer", description=f"DistilBERT base, two classes; {RANDOM}",
        module="architectures", factory="distilbert", arguments={}, inputs=_masked_ids(30_522),
        task="text-classification", dataset=SENTENCES, parameters=66_955_010,
    ),
    ZooEntry(
        name="gpt2_small", family="Transformer", description=f"GPT-2 small; {RANDOM}",
        module="architectures", factory="gpt2", arguments={}, inputs=(_ids(50_257),),
        task="text-generation", dataset=TEXT, parameters=124_439_808,
    ),
    ZooEntry(
        name="gpt2_large", family="Transformer", description=f"GPT-2 large, 3.1 GB; {RANDOM}",
        module="architectures", factory="gpt2", arguments={"n_embd": 1280, "n_layer": 36, "n_head": 20},
        inputs=(_ids(50_257),), task="text-generation", dataset=TEXT, parameters=774_030_080,
    ),
    ZooEntry(
        name="llama_160m", family="Transformer", description=f"Llama decoder, rotary positions; {RANDOM}",
        module="architectures", factory="llama",
        arguments={
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
            "vocab_size": 32_000, "max_position_embeddings": 2048,
        },
        inputs=(_ids(32_000),), task="text-generation", dataset=TEXT, parameters=162_417_408,
    ),
)  # fmt: skip

CATALOGUE = SMALL + REAL_SIZE
