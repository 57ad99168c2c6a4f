"""What may be lost with labels to tell by: the figure of the report, refusals, losses that are chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.quantizer.small import HEAD, MATMUL, vectors
from toolkit.errors import AccuracyError
from toolkit.providers import registry
from toolkit.quantizer.api import quantize
from toolkit.tensors import Array


def labelled(source: Path, count: int = 64) -> list[tuple[dict[str, Array], Array]]:
    """Samples whose labels are the float model's own answers, so that it is always right."""
    feeds = vectors(count)[0]
    scores = registry.provider("cpu").open(source)(feeds)["y"]
    return [(feeds, scores.argmax(-1))]


@pytest.fixture
def classifier(write: Callable[..., Path]) -> Path:
    return write(MATMUL, {"w": (16, 4)})


def npz(path: Path, items: list[tuple[dict[str, Array], Array]]) -> Path:
    feeds, labels = items[0]
    np.savez(path, labels=labels, **feeds)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
    return path


def test_accuracy_before_and_after_is_reported(classifier: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "data.npz", labelled(classifier, 128))
    report = quantize(classifier, tmp_path / "o.onnx", method="static", calibration=vectors(), data=data, max_drop=10)
    assert report.accuracy is not None
    assert (report.accuracy.metric, report.accuracy.before, report.accuracy.samples) == ("accuracy", 1.0, 64)
    assert report.accuracy.unseen


def test_data_alone_is_split_and_calibrates_on_one_half(classifier: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "data.npz", labelled(classifier))
    report = quantize(classifier, tmp_path / "o.onnx", method="static", data=data, max_drop=10)
    assert report.accuracy is not None
    assert (report.calibration_samples, report.accuracy.samples) == (32, 32)
    assert report.accuracy.unseen


def test_more_lost_than_allowed_is_no_file(write: Callable[..., Path], tmp_path: Path) -> None:
    # Calibrated on small inputs, so that the large ones in the data are cut.
    source = write(HEAD + "g (float[N,16] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (16, 4)})
    data = npz(tmp_path / "data.npz", labelled(source, 512))
    small = [{"x": vectors()[0]["x"] * np.float32(0.3)}]
    with pytest.raises(AccuracyError, match=r"static int8, unsigned loses too much.*points lost \(|.*allowed"):
        quantize(source, tmp_path / "o.onnx", method="static", calibration=small, data=data, max_drop=0.1)
    assert not (tmp_path / "o.onnx").exists()


@pytest.fixture
def near_ties(write: Callable[..., Path], tmp_path: Path) -> Callable[[float], tuple[Path, Path]]:
    """``near_ties(scale)``: a classifier whose logits are ``scale`` large, and data, of which int8 gets one wrong."""

    def make(scale: float) -> tuple[Path, Path]:
        weight = np.random.default_rng(3).standard_normal((16, 4)).astype(np.float32) * np.float32(scale)
        source, lowered = write(MATMUL, {"w": weight}), tmp_path / "lowered.onnx"
        quantize(source, lowered, method="static", calibration=vectors())
        feeds = vectors(4096)[0]
        wanted, got = (registry.provider("cpu").open(path)(feeds)["y"].argmax(-1) for path in (source, lowered))
        chosen = [*np.flatnonzero(wanted == got)[:31], np.flatnonzero(wanted != got)[0]]
        return source, npz(tmp_path / "data.npz", [({"x": feeds["x"][chosen]}, wanted[chosen])])

    return make


def test_a_loss_that_is_chance_is_kept_and_said(near_ties: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    source, data = near_ties(0.1)
    report = quantize(source, tmp_path / "o.onnx", method="static", calibration=vectors(), data=data, max_drop=3)
    assert report.accuracy is not None
    assert (report.accuracy.drop_samples, report.accuracy.samples) == (1, 16)
    assert "1 lost and 0 gained, cannot be told from chance (p 0.50)" in " ".join(report.notes)


def test_the_same_loss_of_a_model_that_is_sure_is_refused(
    near_ties: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    source, data = near_ties(1000.0)
    with pytest.raises(AccuracyError, match=r"6\.25 points lost, 1 of 16 samples, 3 allowed"):
        quantize(source, tmp_path / "o.onnx", method="static", calibration=vectors(), data=data, max_drop=3)


def test_auto_keeps_the_fastest_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, classifier: Path, tmp_path: Path
) -> None:
    from toolkit.profiler.pairing import PairedRatio
    from toolkit.quantizer import auto

    def fake(_: object, candidates: dict[str, object], __: object) -> dict[str, PairedRatio]:
        assert "dynamic int8" in candidates
        ratios = dict.fromkeys(candidates, 0.9) | {"dynamic int8": 0.5}
        return {name: PairedRatio(ratio, (ratio, ratio), "faster", 9, 1) for name, ratio in ratios.items()}

    monkeypatch.setattr(auto, "race", fake)
    data = npz(tmp_path / "data.npz", labelled(classifier))
    report = quantize(classifier, tmp_path / "o.onnx", data=data, max_drop=20)
    assert (report.method, report.speed and report.speed.ratio) == ("dynamic int8", 0.5)
    assert report.accuracy is not None and report.accuracy.unseen
    assert [trial.accuracy.samples for trial in report.candidates if trial.accuracy] == [32] * 4
