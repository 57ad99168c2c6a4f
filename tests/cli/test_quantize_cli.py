from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from toolkit.cli.main import run
from toolkit.cli.quantize import parse_pairs, parse_size
from toolkit.errors import UsageError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 11]> g (float[N,16] x) => (float[N,8] y) {'
        " a = MatMul(x, w)\n r = Relu(a)\n y = MatMul(r, v) }"
    )
    generator = np.random.default_rng(0)
    for name, shape in (("w", (16, 16)), ("v", (16, 8))):
        proto.graph.initializer.append(
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        )
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.random.default_rng(1).standard_normal((20, 16)).astype(np.float32))
    return path


def test_table_and_progress_are_kept_apart(
    model: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.onnx"
    assert run(["quantize", str(model), "-o", str(output), "--method", "static", "--calibration", str(samples)]) == 0
    shown = capsys.readouterr()
    assert output.is_file()
    assert "static int8, unsigned" in shown.out
    assert "opset 11 to 13" in shown.out
    assert "narrowed: 2 MatMul" in shown.out
    assert "output y: SNR" in shown.out
    assert shown.err == ""  # no terminal, so no progress bar
    assert all(len(line) <= 80 for line in shown.out.splitlines() if not line.startswith(("note: ", "wrote ")))


def test_json_has_everything(model: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--method", "static", "--calibration", str(samples), "--observer", "percentile", "--samples", "8"]
    record = tmp_path / "record.json"
    code = run(
        [
            "quantize",
            str(model),
            "-o",
            str(tmp_path / "o.onnx"),
            *arguments,
            "--record",
            str(record),
            "--format",
            "json",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (found["schema_version"], found["observer"], found["calibration_samples"]) == (1, "percentile", 8)
    assert (found["opset_before"], found["opset_after"]) == (11, 13)
    assert found["quantized"] == {"MatMul": 2}
    assert found["outputs"][0]["snr_db"] > 25
    assert json.loads(record.read_text())["samples"] == 8


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "static"], 2, "needs samples to take ranges from"),
        (["--method", "static", "--calibration", "none.npz"], 2, "no such"),
        (["--method", "stat"], 2, "'stat'"),
        (["--method", "bfloat16"], 1, "cpu runs no bfloat16 files"),
        (["--target", "cpq"], 2, "unknown target"),
        (["--target", "tensorrt"], 1, "tensorrt"),
        (["--state", "h"], 2, "--state: cannot read this state pair"),
        (["--memory-limit", "lots"], 2, "--memory-limit: cannot read this size"),
        (["--method", "float16", "--record", "r.json"], 2, "needs samples to take ranges from"),
        (["--method", "float16", "-o", "/nowhere/at/all.onnx"], 2, "directory does not exist"),
    ],
)
def test_misuse_is_one_line_and_no_file(
    arguments: list[str], code: int, message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.onnx"
    assert run(["quantize", str(model), "-o", str(output), *arguments]) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert shown.out == ""
    assert not output.exists()


def test_garbage_is_exit_3(tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,16] x) => (float[N,16] y) {'
        " a = MatMul(x, p)\n b = MatMul(x, q)\n y = Sub(a, b) }"
    )
    large = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32) * 100
    for name, array in (("p", large), ("q", large + np.float32(1e-3) * np.eye(16, dtype=np.float32))):
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "m.onnx")
    output = tmp_path / "o.onnx"
    arguments = ["--method", "static", "--calibration", str(samples)]
    assert run(["quantize", str(tmp_path / "m.onnx"), "-o", str(output), *arguments]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"hello, this is text\n", "text file"), (b"\x08\x07\x12\xff\xff\xff", "not an ONNX model")],
)
def test_what_is_no_model(content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert run(["quantize", str(path), "-o", str(tmp_path / "o.onnx")]) == 2
    assert message in capsys.readouterr().err


def test_pairs_and_sizes() -> None:
    assert parse_pairs(("state=stateN", "h = hn")) == {"state": "stateN", "h": "hn"}
    assert (parse_size("512MB"), parse_size("2GB"), parse_size("1.5kb"), parse_size("77")) == (
        1 << 29,
        1 << 31,
        1536,
        77,
    )
    for text in ("", "GB", "5 parrots", "-"):
        with pytest.raises(UsageError):
            parse_size(text)
