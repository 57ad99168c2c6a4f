"""Training: accuracy that the demo promises, determinism, IDX and text data, weights that load again, bad data."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_zoo import digits
from model_zoo.registry import entry
from model_zoo.sources import training_data
from toolkit.cli import main
from toolkit.data import open_data, write_npz
from toolkit.errors import InvalidData, ToolkitError, UsageError

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
training = pytest.importorskip("model_zoo.training")


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("fcnn_digits", 0.95),
        ("cnn_digits", 0.95),
        ("rnn_digits", 0.95),
        ("gru_digits", 0.95),
        ("transformer_digits", 0.93),
    ],
)
def test_the_digits_models_reach_what_the_demo_promises(name: str, accuracy: float) -> None:
    epochs: list[int] = []
    model, report = training.train(entry(name), *training_data(entry(name), None), lambda n, *_: epochs.append(n))
    assert report.test_accuracy >= accuracy + 0.01
    assert (report.train_samples, report.test_samples) == (997, 500)
    assert epochs == list(range(1, report.epochs + 1)) and not model.training
    assert report.losses[-1] < report.losses[0] / 5


def test_splits_share_no_sample_and_lose_none(tmp_path: Path) -> None:
    paths = digits.write_splits(tmp_path)
    assert {name: open_data(path).count for name, path in paths.items()} == digits.SIZES
    arrays = digits.splits()
    assert sum(len(item["labels"]) for item in arrays.values()) == 1797
    assert arrays["test"]["image"].dtype == np.uint8 and arrays["test"]["image"].max() == 16
    again = digits.write_splits(tmp_path / "again")
    assert all(paths[name].read_bytes() == again[name].read_bytes() for name in paths)
    # scikit-learn's digits hold no image twice, so that the images tell the samples apart.
    sides = [{image.tobytes() for image in item["image"]} for item in arrays.values()]
    assert len(set.union(*sides)) == sum(map(len, sides)) == 1797


def test_the_same_data_give_the_same_weights() -> None:
    item = entry("cnn_digits")
    runs = [training.train(item, *training_data(item, None), epochs=2)[0].state_dict() for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.are_deterministic_algorithms_enabled()


def test_weights_load_again_with_those_that_are_shared(tmp_path: Path) -> None:
    load = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").load_file
    for name in ("causal_lm", "cnn_digits"):
        model = entry(name).build()
        path = training.save_weights(model, tmp_path / f"{name}.safetensors", name)
        other = replace(entry(name), seed=7).build()
        other.load_state_dict(load(path))
        assert all(torch.equal(values, other.state_dict()[key]) for key, values in model.state_dict().items())


def write_idx(folder: Path, part: str, count: int) -> None:
    generator = np.random.default_rng(count)
    labels = generator.integers(0, 10, count).astype(np.uint8)
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label * 2 : label * 2 + 4, :] = 200
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))


def test_idx_files_train_the_784_model(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", 300)
    write_idx(tmp_path, "t10k", 100)
    item = entry("fcnn_mnist")
    _, report = training.train(item, *training_data(item, tmp_path))
    assert (report.train_samples, report.test_samples) == (300, 100)
    assert report.test_accuracy > 0.95


def test_one_set_is_split(tmp_path: Path) -> None:
    write_idx(tmp_path, "t10k", 100)
    train, test = training_data(entry("fcnn_mnist"), tmp_path)
    assert (train.count, test.count) == (80, 20)


def test_texts_train_the_classifier_and_the_language_model(tmp_path: Path) -> None:
    texts = np.array(["good film", "bad plot", "so good", "a bad one it was"] * 8)
    labels = np.array([1, 0, 1, 0] * 8)
    path = write_npz(tmp_path / "texts.npz", {"text": texts, "labels": labels})
    for name in ("text_classifier", "causal_lm"):
        item = entry(name)
        _, report = training.train(item, *training_data(item, path, batch_size=4), epochs=2)
        assert report.test_samples == 6 and report.losses[1] < report.losses[0]


@pytest.mark.parametrize(
    ("name", "arrays", "error", "message"),
    [
        ("resnet18", {"image": np.zeros((9, 8, 8, 3), np.uint8)}, UsageError, "the zoo does not train this model"),
        ("cnn_digits", {"image": np.zeros((9, 8, 8), np.uint8)}, InvalidData, "training needs labels"),
        (
            "cnn_digits",
            {"image": np.zeros((9, 8, 8)), "labels": np.full(9, 10)},
            InvalidData,
            "out of range; got 10…10; expected 0…9",
        ),
        (
            "cnn_digits",
            {"image": np.zeros((9, 8, 8)), "labels": np.full(9, 0.5)},
            InvalidData,
            "labels are no class numbers",
        ),
        ("cnn_digits", {"pixels": np.zeros((9, 8, 8))}, InvalidData, "there is no array 'image'"),
        (
            "fcnn_mnist",
            {"image": np.zeros((9, 8, 8)), "labels": np.zeros(9)},
            InvalidData,
            "step 1 (reshape) does not fit",
        ),
    ],
)
def test_bad_data_are_one_line(
    tmp_path: Path, name: str, arrays: dict[str, np.ndarray], error: type[ToolkitError], message: str
) -> None:
    path = write_npz(tmp_path / "d.npz", arrays)
    with pytest.raises(error) as caught:
        training.train(entry(name), *training_data(entry(name), path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_data_and_none_bundled() -> None:
    with pytest.raises(UsageError, match="zoo:fcnn_mnist: no data come with it; --data: MNIST or Fashion-MNIST"):
        training_data(entry("fcnn_mnist"), None)


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main.run(list(args))
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_lists_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "zoo", "list")
    assert (code, err) == (0, "")
    assert "rnn_digits" in out and max(map(len, out.splitlines())) <= 80


def test_the_command_trains_and_exports_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, folder = tmp_path / "w.safetensors", tmp_path / "digits"
    args = ("zoo", "train", "fcnn-digits", "--epochs", "2", "-o", str(weights))
    code, out, err = outcome(capsys, *args, "--export-data", str(folder))
    assert code == 0 and weights.stat().st_size > 50_000
    assert "test accuracy" in out and "2 epochs on 997 samples" in out
    assert sorted(path.name for path in folder.iterdir()) == ["calibration.npz", "test.npz", "train.npz"]
    assert err.count("wrote ") == 3
    code, out, err = outcome(capsys, "zoo", "train", "fcn-digits", "-o", str(weights))
    assert (code, out) == (2, "") and "'fcnn_digits' (did you mean that?)" in err
    code, _, err = outcome(capsys, "zoo", "train", "fcnn-digits", "-o", str(tmp_path / "no" / "w"))
    assert code == 2 and "the output's directory does not exist" in err
