"""Preprocessing: each step against a reference, the recipe's JSON, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import InvalidData
from toolkit.preprocess import (
    Cast,
    CenterCrop,
    Channels,
    Clip,
    Grayscale,
    InputSteps,
    Layout,
    Mask,
    Normalize,
    Pad,
    Preprocessing,
    Reshape,
    Resize,
    Scale,
    Step,
    Tokenize,
    Truncate,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 37, 53, 3), dtype=np.uint8)


def run(values: object, *steps: Step) -> np.ndarray:
    return Preprocessing((InputSteps("x", steps),)).apply({"x": values})["x"]  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(20, 30), (80, 60), (37, 53), (224, 224)])
def test_resize_is_pillows(name: str, height: int, width: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    wanted = np.stack(
        [image.fromarray(item).resize((width, height), getattr(image.Resampling, name.upper())) for item in IMAGES]
    )
    found = run(IMAGES, Resize(height=height, width=width, filter=name))  # type: ignore[arg-type]
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1  # Pillow computes in fixed point


def test_resize_keeps_the_aspect_of_the_shorter_side() -> None:
    assert run(IMAGES, Resize(shortest=20)).shape == (2, 20, 28, 3)
    assert run(IMAGES.transpose(0, 2, 1, 3), Resize(shortest=20)).shape == (2, 28, 20, 3)


def test_resize_of_floats_is_not_rounded() -> None:
    found = run(np.array([[[0.0, 1.0]]], np.float32), Resize(height=1, width=4))
    np.testing.assert_allclose(found, [[[0, 0.25, 0.75, 1]]])


def test_center_crop_cuts_and_surrounds() -> None:
    np.testing.assert_array_equal(run(IMAGES, CenterCrop(21, 21)), IMAGES[:, 8:29, 16:37])
    padded = run(IMAGES, CenterCrop(41, 53))
    np.testing.assert_array_equal(padded[:, 2:39], IMAGES)
    assert not padded[:, :2].any() and not padded[:, 39:].any()


def test_grayscale_is_pillows_and_leaves_grey_alone() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    wanted = np.asarray(image.fromarray(IMAGES[0]).convert("L")).astype(int)
    assert np.abs(run(IMAGES, Grayscale())[0].astype(int) - wanted).max() <= 1
    np.testing.assert_array_equal(run(IMAGES[..., 0], Grayscale()), IMAGES[..., 0])
    np.testing.assert_array_equal(run(IMAGES[..., :1], Grayscale()), IMAGES[..., 0])


def test_channels_layout_scale_and_normalize_are_what_models_are_trained_with() -> None:
    found = run(
        IMAGES, Channels((2, 1, 0)), Layout("NHWC", "NCHW"), Scale(1 / 255), Normalize((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    )
    wanted = (IMAGES[..., ::-1].transpose(0, 3, 1, 2) / 255 - np.array([0.4, 0.5, 0.6]).reshape(3, 1, 1)) / np.array(
        [0.1, 0.2, 0.3]
    ).reshape(3, 1, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert run(IMAGES[..., 0], Channels((0, 0, 0))).shape == (2, 37, 53, 3)
    assert run(IMAGES[..., 0], Layout("NHW", "NCHW")).shape == (2, 1, 37, 53)
    np.testing.assert_allclose(run(IMAGES, Normalize((1.0,), (2.0,))), (IMAGES - 1.0) / 2, atol=1e-5)


def test_small_steps() -> None:
    row = np.array([[1.7, -3.0, 5.0]], np.float32)
    assert run(row, Clip(0, 2)).tolist() == [[pytest.approx(1.7), 0, 2]]
    assert run(row, Cast("int64")).tolist() == [[1, -3, 5]]
    assert run(row, Reshape((3, 1))).shape == (1, 3, 1)
    assert run(row, Pad(1, 5, value=9)).tolist()[0][3:] == [9, 9]
    assert run(row, Pad(1, 5, side="start")).tolist()[0][:2] == [0, 0]
    assert run(row, Pad(1, 2)).shape == (1, 3)
    assert run(row, Truncate(1, 2)).shape == run(row, Truncate(1, 2), Truncate(1, 9)).shape == (1, 2)


def test_tokens_of_words_characters_and_bytes() -> None:
    texts = ["the cat", "a CAT sat"]
    words = Tokenize("words", ("<pad>", "<unk>", "the", "cat"), lower=True, unknown=1, start=7, end=8)
    assert run(texts, words).tolist() == [[7, 2, 3, 8, 0], [7, 1, 3, 1, 8]]
    assert run(["ab"], Tokenize("characters", ("a", "b"), length=4, pad=9)).tolist() == [[0, 1, 9, 9]]
    assert run(["é"], Tokenize("bytes")).tolist() == [[0xC3, 0xA9]]
    assert run(["a b c d"], Tokenize("words", ("a", "b", "c"), end=5, length=3)).tolist() == [[0, 1, 5]]
    assert run(texts, words, Mask()).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_samples_of_different_sizes_go_one_by_one() -> None:
    found = run([IMAGES[0], IMAGES[1][:20]], Resize(height=8, width=8), Layout("NHWC", "NCHW"))
    assert found.shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(found[:1], run(IMAGES[:1], Resize(height=8, width=8), Layout("NHWC", "NCHW")))
    with pytest.raises(InvalidData, match=r"input 'x': samples of one batch have different shapes.*\[20, 53, 3\]"):
        run([IMAGES[0], IMAGES[1][:20]])


def test_two_inputs_of_one_source_and_arrays_that_pass() -> None:
    tokens = Tokenize("bytes", length=3)
    both = Preprocessing((InputSteps("ids", (tokens,), "text"), InputSteps("mask", (tokens, Mask()), "text")))
    found = both.apply({"text": ["a"], "speed": np.ones((1, 2), np.float32)})
    assert {name: value.tolist() for name, value in found.items()} == {
        "ids": [[97, 0, 0]], "mask": [[1, 0, 0]], "speed": [[1, 1]],
    }  # fmt: skip
    with pytest.raises(InvalidData, match=r"file.npz: a raw array is missing; got names \['txt'\]; expected 'text'"):
        both.apply({"txt": ["a"]}, "file.npz")


def test_json_round_trip_is_stable_and_short() -> None:
    recipe = Preprocessing(
        (InputSteps("x", (Resize(shortest=4), Normalize((0.5,), (0.5,)), Tokenize("bytes")), "image"),)
    )
    assert Preprocessing.from_json(recipe.to_json()) == recipe
    assert recipe.to_json() == Preprocessing.from_json(recipe.to_json()).to_json()
    assert '"step":"resize","shortest":4}' in recipe.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the preprocessing does not hold"),
        ('{"inputs": [{"input": "x", "steps": [{"step": "rezise"}]}]}', "'resize' (did you mean that?)"),
        ('{"inputs": [{"input": "x", "steps": [{"step": "resize"}]}]}', "resize wants height and width"),
        ('{"inputs": [{"input": "x", "steps": [{"step": "scale", "faktor": 2}]}]}', "faktor"),
        ('{"inputs": [{"input": "x", "steps": [{"step": "layout", "source": "NHWC", "to": "NCC"}]}]}', "letters"),
        ('{"inputs": [{"input": "x", "steps": [{"step": "normalize", "mean": [0], "std": [0]}]}]}', "none of them 0"),
        ('{"inputs": [{"input": "x", "steps": [{"step": "cast", "dtype": "float31"}]}]}', "'float32' (did you mean"),
        ('{"inputs": [], "schema_version": 99}', "written by a newer toolkit"),
        ("[" * 100_000, "the preprocessing does not hold"),
    ],
)
def test_bad_json_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InvalidData) as caught:
        Preprocessing.from_json(text, where="p.json")
    assert str(caught.value).startswith("p.json: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (np.zeros((2, 3)), Layout("NHWC", "NCHW")),
        (np.zeros((2, 3)), Reshape((4,))),
        (np.zeros((2, 3)), Normalize((0, 0), (1, 1))),
        (np.zeros((2, 3)), Tokenize("bytes")),
        (np.zeros((2, 3)), Pad(0, 4)),
        (np.zeros((2, 3)), Resize(height=2, width=2)),
        (np.zeros((2, 3, 3, 2)), Grayscale()),
    ],
)
def test_a_step_that_does_not_fit_is_named(values: np.ndarray, step: Step) -> None:
    with pytest.raises(InvalidData, match=r"input 'x': preprocessing step 2 \(\w+\) does not fit.*got float64\["):
        run(values, Clip(0, 1), step)
