"""Published figures on real models and data, where they are at hand (never copied into the project)."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest

from toolkit.data import write_npz
from toolkit.evaluator.api import evaluate
from toolkit.preprocess import InputSteps, Layout, Preprocessing, Scale

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
MATERIAL = Path(os.environ.get("TOOLKIT_MATERIAL", Path(__file__).parents[3] / "shared" / "material"))


def material(name: str) -> Path:
    path = MATERIAL / name
    if not path.exists():
        pytest.skip(f"no {path}; set TOOLKIT_MATERIAL to the folder of models")
    return path


def test_mnist_from_idx_files_on_a_model_with_a_fixed_batch() -> None:
    recipe = Preprocessing((InputSteps("Input3", (Layout("NHW", "NCHW"), Scale()), "image"),))
    report = evaluate(material("ort-mnist/mnist.onnx"), material("data-mnist-test"), preprocessing=recipe)
    assert report.samples == 10_000
    assert report.metrics["accuracy"] == pytest.approx(0.9891, abs=1e-4)


def speech_fraction(outputs: dict[str, np.ndarray], _: None) -> float:
    return float((outputs["output"] > 0.5).mean())


def test_voice_activity_carries_its_state_through_a_recording(tmp_path: Path) -> None:
    with wave.open(str(material("silero-vad/test.wav"))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    padded = np.concatenate([np.zeros(64, np.float32), samples])
    rows = np.stack([padded[start : start + 576] for start in range(0, len(samples) - 511, 512)])
    data = write_npz(tmp_path / "speech.npz", {"input": rows, "sr": np.array(16000)}, state={"state": "stateN"})
    report = evaluate(material("silero-vad/silero_vad_16k_op15.onnx"), data, metric=speech_fraction)
    assert report.samples == 1875
    assert report.metrics["speech_fraction"] == pytest.approx(0.774, abs=1e-3)
