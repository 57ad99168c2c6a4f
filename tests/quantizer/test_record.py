from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import FileProblem, InvalidData, UsageError
from toolkit.quantizer.calibration.histogram import StreamingHistogram
from toolkit.quantizer.calibration.record import CalibrationRecord, pack, read_record


def record() -> CalibrationRecord:
    histogram = StreamingHistogram()
    histogram.update(np.random.default_rng(0).standard_normal(5000).astype(np.float32))
    return CalibrationRecord("m.onnx", "a" * 64, "d.npz", "b" * 64, 5000, {"t": pack(histogram.distribution())})


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = record().write(tmp_path / "r.json")
    found = read_record(path)
    assert found == record()
    seen, wanted = found.distribution("t"), record().distribution("t")
    assert seen is not None and wanted is not None
    assert np.array_equal(seen.counts, wanted.counts)
    assert seen.counts.sum() == 5000
    assert found.distribution("other") is None


def test_equal_records_give_equal_bytes_that_can_be_read(tmp_path: Path) -> None:
    first, second = (record().write(tmp_path / name).read_bytes() for name in ("a.json", "b.json"))
    assert first == second
    assert json.loads(first)["tensors"]["t"]["highest"] == pytest.approx(3.5, abs=1)


def test_a_record_of_another_model_is_refused() -> None:
    assert record().require("a" * 64, "r.json")
    with pytest.raises(
        UsageError, match=r"r.json: this calibration record was made from another model.*calibrate again"
    ):
        record().require("c" * 64, "r.json")


@pytest.mark.parametrize(
    "content",
    ["", "not json", "{}", "[1]", '{"model": 3}', json.dumps({"tensors": {"t": {"counts": "!!"}}})],
)
def test_what_is_no_record_gets_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises((InvalidData, FileProblem)) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("counts", "AAAA"), ("lowest", 9.0), ("highest", None), ("exponent", "2")]
)
def test_a_damaged_tensor_is_refused(field: str, value: object, tmp_path: Path) -> None:
    path = record().write(tmp_path / "r.json")
    content = json.loads(path.read_text())
    content["tensors"]["t"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidData, match="not a calibration record"):
        read_record(path)


def test_a_newer_one_says_so(tmp_path: Path) -> None:
    path = record().write(tmp_path / "r.json")
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(InvalidData, match="newer toolkit"):
        read_record(path)
