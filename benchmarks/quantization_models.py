"""What the benchmark measures: float ONNX files with samples to calibrate on, to choose by, and to report on.

Each :class:`Case` is built once into the cache folder: ``float.onnx``, ``calibration.npz``, ``choose.npz`` and
``test.npz`` in the layout of docs/data.md, already preprocessed, so that every quantizer reads the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.tensors import Array, TensorSpec

Arrays = dict[str, Array]
SEED = 7


class Parts(NamedTuple):
    """Samples by input name, with ``labels`` where there are some; three disjoint sets."""

    calibration: Arrays
    choose: Arrays
    test: Arrays
    state: dict[str, str] = {}  # noqa: RUF012 - never changed


class Case(NamedTuple):
    """A model of the table.

    Attributes:
        build: writes the float model to a path, given the material's folder.
        samples: makes the samples, given the material's folder.
        needs: folders of the material without which this case is skipped.
        drop: points of accuracy that may be lost.
    """

    name: str
    build: Callable[[Path, Path], None]
    samples: Callable[[Path], Parts]
    needs: tuple[str, ...] = ()
    transformer: bool = False
    drop: float = 1.0


def parts(arrays: Arrays, sizes: tuple[int, int, int], *, state: dict[str, str] | None = None) -> Parts:
    """Cut off three runs of samples, shuffled beforehand where nothing depends on their order."""
    count = len(next(iter(arrays.values())))
    order = np.arange(count) if state else np.random.default_rng(SEED).permutation(count)
    ends = np.cumsum(sizes)
    chosen = [order[start:end] for start, end in zip((0, *ends), ends, strict=False)]
    return Parts(*({name: array[rows] for name, array in arrays.items()} for rows in chosen), state or {})


# the zoo


def _zoo(name: str) -> Callable[[Path, Path], None]:
    """A real-size architecture, or a digits model trained by its recipe."""

    def build(path: Path, _: Path) -> None:
        from toolkit.exporter.api import export
        from toolkit.exporter.zoo import zoo_module

        entry = zoo_module("registry").entry(name)
        if "digits" not in name:
            export(f"zoo:{name}", output=path)
            _forget_preprocessing(path)
            return
        training, splits = zoo_module("training"), zoo_module("digits").write_splits(path.parent / "digits")
        data = {key: _digits(name, splits[key]) for key in ("train", "test")}
        module, _report = training.train(entry, data["train"], data["test"])
        training.save_weights(module, path.parent / "weights.safetensors", name)
        export(f"zoo:{name}", output=path, weights=path.parent / "weights.safetensors")
        _forget_preprocessing(path)

    return build


def _digits(name: str, path: Path):
    from toolkit.data import open_data
    from toolkit.exporter.zoo import zoo_module

    entry = zoo_module("registry").entry(name)
    return open_data(path, inputs=entry.inputs, preprocessing=entry.preprocessing)


def _forget_preprocessing(path: Path) -> None:
    """The benchmark's files hold what the models take; recorded steps would be applied to that again."""
    import onnx

    model = onnx.load(path)
    kept = [item for item in model.metadata_props if item.key != "toolkit.preprocessing"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)


def _digit_samples(name: str) -> Callable[[Path], Parts]:
    def samples(_: Path) -> Parts:
        import tempfile

        from toolkit.exporter.zoo import zoo_module

        with tempfile.TemporaryDirectory() as folder:
            splits = zoo_module("digits").write_splits(Path(folder))
            found = {}
            for key in ("calibration", "test"):
                batches = list(_digits(name, splits[key]))
                found[key] = {k: np.concatenate([b.feeds[k] for b in batches]) for k in batches[0].feeds}
                found[key]["labels"] = np.concatenate([b.labels for b in batches])
        first = {key: array[:100] for key, array in found["calibration"].items()}
        rest = {key: array[100:] for key, array in found["calibration"].items()}
        return Parts(first, rest, found["test"])

    return samples


def _planes(_: Path) -> Parts:
    """Smooth random images: noise of several scales, scaled like normalized photographs."""
    generator = np.random.default_rng(SEED)
    images = sum(
        np.repeat(np.repeat(generator.standard_normal((64, 3, size, size)), 224 // size, 2), 224 // size, 3)
        for size in (4, 14, 56, 224)
    )
    return parts({"pixel_values": (images / 2).astype(np.float32)}, (32, 16, 16))


def _tokens(_: Path) -> Parts:
    """64 tokens each, of which the last up to 32 are padding."""
    generator = np.random.default_rng(SEED)
    ids = generator.integers(0, 30_522, (80, 64))
    mask = (np.arange(64) < generator.integers(32, 65, (80, 1))).astype(np.int64)
    mask[-16:] = 1
    arrays = {"input_ids": ids * mask, "attention_mask": mask}
    cuts = (slice(0, 32), slice(32, 64), slice(64, 80))
    return Parts(*({name: array[cut] for name, array in arrays.items()} for cut in cuts))


# the material


def _module(factory: str, spec: TensorSpec) -> Callable[[Path, Path], None]:
    def build(path: Path, material: Path) -> None:
        import material_models

        from toolkit.exporter.api import export

        export(getattr(material_models, factory)(material), [spec], path)

    return build


def _file(name: str, dims: dict[str, int] | None = None) -> Callable[[Path, Path], None]:
    """A file of the material; ``dims`` are fixed for everybody."""

    def build(path: Path, material: Path) -> None:
        if dims is None:
            path.write_bytes((material / name).read_bytes())
            return
        from toolkit.optimizer.api import optimize

        optimize(material / name, path, dims=dims)

    return build


def _cifar(material: Path) -> Parts:
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    found = []
    for name in ("calibration-500", "test-2000"):
        with np.load(material / "cifar10-resnets" / f"{name}.npz") as archive:
            images = ((archive["images"].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
            found.append({"pixel_values": np.ascontiguousarray(images), "labels": archive["labels"]})
    cuts = (slice(0, 128), slice(128, 500))
    return Parts(*({name: array[cut] for name, array in found[0].items()} for cut in cuts), found[1])


def _photos(material: Path, folder: str, size: tuple[int, int]) -> tuple[list[str], Array]:
    from PIL import Image

    paths = sorted((material / folder).glob("*.jpg"))
    images = [
        np.asarray(Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)) for path in paths
    ]
    return [path.name for path in paths], np.stack(images)


def _imagenet(material: Path) -> Parts:
    names, images = _photos(material, "data-imagenet-sample", (227, 227))
    pixels = images[..., ::-1].astype(np.float32) - np.float32([104, 117, 123])
    labels = np.array([int(name.split("_")[0]) for name in names])
    return parts({"pixel_values": pixels.transpose(0, 3, 1, 2), "labels": labels}, (64, 136, 300))


def _keywords(material: Path) -> Parts:
    with np.load(material / "mlperf-tiny" / "kws-test-1000.npz") as archive:
        return parts({"mfcc": archive["mfcc"], "labels": archive["labels"]}, (100, 300, 600))


def _mnist(material: Path) -> Parts:
    import gzip

    folder = material / "data-mnist-test"
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = pixels.reshape(-1, 1, 28, 28).astype(np.float32)
    return parts({"Input3": images, "labels": labels.astype(np.int64)}, (128, 1000, 2000))


def _sentences(material: Path) -> Parts:
    """Sentences of the commonest length, since samples of one file share a shape; labels at the marked place."""
    import json
    from collections import Counter

    folder = material / "g2pm"
    ids, classes = (json.loads((folder / f"{name}.json").read_text()) for name in ("char2idx", "class2idx"))
    length = 0
    found = []
    for split in ("dev", "test"):
        texts = (folder / f"{split}.sent").read_text().splitlines()
        labels = (folder / f"{split}.lb").read_text().split()
        length = length or Counter(map(len, texts)).most_common(1)[0][0]
        rows, targets = [], []
        for text, label in zip(texts, labels, strict=True):
            if len(text) != length:
                continue
            before, marked, after = text.split("▁")
            plain = before + marked.strip() + after
            rows.append([ids["시"], *(ids.get(character, ids["<UNK>"]) for character in plain), ids["끝"]])
            target = np.full(len(rows[-1]), -100)
            target[1 + len(before)] = classes[label]
            targets.append(target)
        found.append({"ids": np.array(rows), "labels": np.array(targets)})
    cuts = (slice(0, 64), slice(64, None))
    return Parts(*({name: array[cut] for name, array in found[0].items()} for cut in cuts), found[1])


def _speech(material: Path) -> Array:
    import wave

    with wave.open(str(material / "silero-vad" / "test.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def _frames(signal: Array, size: int, hop: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(signal, size)[::hop].copy()


def _silero(material: Path) -> Parts:
    """512 samples after 64 of context per step."""
    chunks = _frames(np.concatenate([np.zeros(64, np.float32), _speech(material)]), 576, 512)
    made = parts({"input": chunks}, (128, 256, 600), state={"state": "stateN"})
    rate = {"sr": np.array(16_000)}
    return Parts(*({**arrays, **rate} for arrays in made[:3]), made.state)


def _dtln_spectra(material: Path) -> Parts:
    spectra = np.abs(np.fft.rfft(_frames(_speech(material), 512, 128))).astype(np.float32)
    return parts({"input_2": spectra[:, None]}, (128, 256, 600), state={"input_3": "tf_op_layer_stack_2"})


def _dtln_frames(material: Path) -> Parts:
    frames = _frames(_speech(material), 512, 128)
    return parts({"input_4": frames[:, None]}, (128, 256, 600), state={"input_5": "tf_op_layer_stack_5"})


def _ultraface(material: Path) -> Parts:
    images = (_photos(material, "data-coco-images", (240, 320))[1].astype(np.float32) - 127) / 128
    return parts({"input": images.transpose(0, 3, 1, 2)}, (20, 8, 12))


def _yunet(material: Path) -> Parts:
    images = _photos(material, "data-coco-images", (320, 320))[1][..., ::-1].astype(np.float32)
    return parts({"input": images.transpose(0, 3, 1, 2)}, (20, 8, 12))


def _luma(material: Path) -> Parts:
    images = _photos(material, "data-coco-images", (224, 224))[1].astype(np.float32)
    luma = (images @ np.float32([0.299, 0.587, 0.114])) / 255
    return parts({"input": luma[:, None]}, (20, 8, 12))


def _jets(_: Path) -> Parts:
    values = np.random.default_rng(SEED).standard_normal((600, 16)).astype(np.float32)
    return parts({"features": values}, (128, 128, 256))


def _spec(name: str, *shape: int | str, dtype: str = "float32", high: int | None = None) -> TensorSpec:
    return TensorSpec(name, dtype, shape, None if high is None else (0, high))


CASES = (
    *(
        Case(name, _zoo(name), _digit_samples(name), transformer=name == "transformer_digits")
        for name in ("fcnn_digits", "cnn_digits", "rnn_digits", "transformer_digits")
    ),
    Case("mobilenet_v2", _zoo("mobilenet_v2"), _planes),
    Case("resnet50", _zoo("resnet50"), _planes),
    Case("vit_s16", _zoo("vit_s16"), _planes, transformer=True),
    Case("bert_6layer", _zoo("bert_6layer"), _tokens, transformer=True),
    *(
        Case(name, _module(name, _spec("pixel_values", "batch", 3, 32, 32)), _cifar, ("cifar10-resnets",), drop=0.5)
        for name in ("resnet20", "resnet56")
    ),
    Case(
        "squeezenet", _module("squeezenet", _spec("pixel_values", "batch", 3, 227, 227)), _imagenet,
        ("squeezenet-dc", "data-imagenet-sample"),
    ),
    Case("keywords", _module("keywords", _spec("mfcc", "batch", 1, 49, 10)), _keywords, ("mlperf-tiny",)),
    Case(
        "polyphones", _module("polyphones", _spec("ids", "batch", "time", dtype="int64", high=5397)), _sentences,
        ("g2pm",),
    ),
    Case(
        "silero_16k", _file("silero-vad/silero_vad_16k_op15.onnx", {"batch": 1, "sequence": 576}), _silero,
        ("silero-vad",),
    ),
    Case("dtln_1", _file("dtln/model_1.onnx"), _dtln_spectra, ("dtln", "silero-vad")),
    Case("dtln_2", _file("dtln/model_2.onnx"), _dtln_frames, ("dtln", "silero-vad")),
    Case("ultraface", _file("ultraface/version-RFB-320.onnx"), _ultraface, ("ultraface", "data-coco-images")),
    Case("yunet", _file("yunet/yunet_n_dynamic.onnx"), _yunet, ("yunet", "data-coco-images")),
    Case("mnist", _file("ort-mnist/mnist.onnx"), _mnist, ("ort-mnist", "data-mnist-test")),
    Case("espcn", _file("superres-espcn/super_resolution.onnx"), _luma, ("superres-espcn", "data-coco-images")),
    Case("jets", _module("jets", _spec("features", "batch", 16)), _jets, ("hls4ml-jets",)),
)  # fmt: skip
QUICK = ("cnn_digits", "transformer_digits", "resnet20")
