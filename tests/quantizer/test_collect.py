from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import InvalidData, ToolkitError
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model
from toolkit.quantizer.calibration.collect import Origin, calibrate
from toolkit.quantizer.calibration.record import CalibrationRecord
from toolkit.quantizer.preparing import prepare
from toolkit.quantizer.samples import open_samples
from toolkit.tensors import Array

Items = list[dict[str, Array]]
STEP = """
<ir_version: 8, opset_import: ["" : 17]>
step (float[1,4] x, float[1,4] h) => (float[1,4] y, float[1,4] hn) {
  hn = Add(h, x)
  y = MatMul(hn, w)
}"""


def record(path: Path, items: Items, batch_size: int = 32, **options: object) -> CalibrationRecord:
    model = prepare(load_model(path), opset=13, where=path).model
    state = options.pop("state", None)
    data = open_samples(items, facts(model), state=state)  # type: ignore[arg-type]  # a mapping or None
    data = data.batched(min(batch_size, data.batch_size))
    return calibrate(model, data, Origin("m", "h"), **options)  # type: ignore[arg-type]  # options of calibrate


def assert_alike(left: CalibrationRecord, right: CalibrationRecord) -> None:
    """Equal but for what another batch size changes in an engine's last bits."""
    assert left.samples == right.samples
    assert left.tensors.keys() == right.tensors.keys()
    for name, tensor in left.tensors.items():
        other = right.tensors[name]
        assert (tensor.lowest, tensor.highest) == pytest.approx((other.lowest, other.highest), rel=1e-5, abs=1e-6)
        assert (tensor.exponent, tensor.values) == (other.exponent, other.values)
        seen, others = left.distribution(name), right.distribution(name)
        assert seen is not None and others is not None
        low = min(seen.first, others.first)
        moved = [np.pad(item.counts, (item.first - low, 0)) for item in (seen, others)]
        size = max(map(len, moved))
        first, second = (np.pad(item, (0, size - len(item))) for item in moved)
        assert np.abs(first - second).sum() <= 0.002 * seen.values


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_batches_do_not_matter(batch_size: int, cnn: Path, images: Items) -> None:
    assert_alike(record(cnn, images, batch_size), record(cnn, images, 8))


def test_the_ranges_are_those_of_the_tensors(cnn: Path, images: Items) -> None:
    found = record(cnn, images)
    values = np.concatenate([item["x"] for item in images])
    assert (found.tensors["x"].lowest, found.tensors["x"].highest) == (values.min(), values.max())
    assert found.tensors["r"].lowest == 0.0
    assert found.tensors["x"].values == values.size
    assert found.samples == 32
    assert {"x", "r", "c", "t", "e", "g", "f"} <= found.tensors.keys()


def test_too_little_memory_means_groups_not_less_seen(cnn: Path, images: Items) -> None:
    assert_alike(record(cnn, images, memory_limit_bytes=1), record(cnn, images, 1))


def test_memory_does_not_grow_with_the_samples(cnn: Path) -> None:
    def peak(count: int) -> int:
        def stream() -> Iterator[dict[str, Array]]:
            generator = np.random.default_rng(0)
            for _ in range(count):
                yield {"x": generator.standard_normal((4, 3, 16, 16)).astype(np.float32)}

        tracemalloc.start()
        record(cnn, stream)  # type: ignore[arg-type]  # a function that gives batches
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(4)  # what is loaded once is not counted
    assert peak(160) < 1.1 * peak(32)


def test_samples_of_different_shapes(block: Path, sequences: Items) -> None:
    found = record(block, sequences)
    assert found.samples == 8
    assert found.tensors["h"].values == sum(item["x"].size for item in sequences)


def test_state_is_fed_back(write: Callable[..., Path]) -> None:
    path = write(STEP, {"w": np.eye(4, dtype=np.float32)})
    items = [{"x": np.full((1, 4), 1.0, np.float32)} for _ in range(5)]
    found = record(path, items, state={"h": "hn"})
    assert (found.tensors["hn"].lowest, found.tensors["hn"].highest) == (1.0, 5.0)


def test_nan_in_a_sample_is_found(cnn: Path, images: Items) -> None:
    images[2]["x"][3, 0, 0, 0] = np.nan
    with pytest.raises(InvalidData, match=r"iterable: 'x': NaN in the calibration data; got in sample 19"):
        record(cnn, images, 8)


def test_a_stream_that_raises_half_way_says_how_far_it_got(cnn: Path, images: Items) -> None:
    def stream() -> Iterator[dict[str, Array]]:
        yield from images[:2]
        raise ConnectionError("the camera went away")

    with pytest.raises(InvalidData, match=r"failed after 2 batches; got ConnectionError: the camera went away"):
        record(cnn, stream, 8)  # type: ignore[arg-type]  # a function that gives batches


def test_an_empty_stream(cnn: Path) -> None:
    with pytest.raises(InvalidData, match="no samples"):
        record(cnn, [])


def test_samples_that_do_not_fit_the_model(cnn: Path) -> None:
    with pytest.raises(ToolkitError, match=r"wrong size|wrong rank"):
        record(cnn, [{"x": np.ones((2, 1, 16, 16), np.float32)}])


def test_infinities_inside_the_model_are_counted(write: Callable[..., Path]) -> None:
    path = write(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { l = Log(x)\n y = MatMul(l, w) }',
        {"w": (4, 4)},
    )
    found = record(path, [{"x": np.array([[0, 1, 2, 3]], np.float32)}])
    assert (found.tensors["l"].nonfinite, found.tensors["l"].values) == (1, 3)
