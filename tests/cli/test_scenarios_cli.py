"""``toolkit profile --scenario --streams --sweep --machine``."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from toolkit.cli import main
from toolkit.cli.scenarios import parse_scenarios, parse_sweeps, with_exports
from toolkit.errors import UsageError
from toolkit.profiler.models import Model
from toolkit.providers.null import NullModel
from toolkit.tensors import TensorSpec

QUICK = ("--budget", "0.3s", "--processes", "1", "--target", "null")


@pytest.fixture
def model(tmp_path: Path) -> str:
    specs = (TensorSpec("x", "float32", ("batch", 4)),)
    path = tmp_path / "model.json"
    path.write_bytes(msgspec.json.encode(NullModel(specs, specs, delay_ns=1_000_000, sample_ns=1_000_000)))
    return str(path)


def outcome(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main.run(["profile", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_scenarios_are_listed_or_repeated() -> None:
    assert parse_scenarios(["single-stream, offline", "offline"]) == ("single-stream", "offline")


def test_sweeps() -> None:
    assert parse_sweeps(["batch=1, 2,2", "seq=16"]) == {"batch": (1, 2), "seq": (16,)}
    for text in ("batch", "batch=", "=1", "batch=0", "batch=a", "batch=1,"):
        with pytest.raises(UsageError, match="--sweep: cannot read this sweep"):
            parse_sweeps([text])
    with pytest.raises(UsageError, match="--sweep: this variable is swept already; got batch"):
        parse_sweeps(["batch=1", "batch=2"])


def test_json_holds_scenarios_sweeps_and_prices(capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path) -> None:
    machine = tmp_path / "machine.toml"
    machine.write_text('price_per_hour = 1.0\ncurrency = "EUR"\nwatts = 100\n')
    code, out, _ = outcome(
        capsys, model, *QUICK, "--scenario", "single-stream,multi-stream", "--streams", "2", "--sweep", "batch=1,2,4",
        "--machine", str(machine), "--format", "json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert [(case["scenario"], case["streams"], case["batch"]) for case in found["cases"]] == [
        ("single-stream", 1, 1), ("single-stream", 1, 2), ("single-stream", 1, 4),
        ("multi-stream", 2, 1), ("multi-stream", 2, 2), ("multi-stream", 2, 4),
    ]  # fmt: skip
    case = found["cases"][0]
    assert case["price"]["per_million"] == pytest.approx(1e6 / 3600 / case["throughput_per_s"])
    assert case["energy"]["joules"] == pytest.approx(100 / case["throughput_per_s"])
    assert [sweep["variable"] for sweep in found["sweeps"]] == ["batch", "batch"]
    assert found["settings"]["sweeps"] == {"batch": [1, 2, 4]}


def test_the_table_draws_the_sweep_and_lists_the_batches(capsys: pytest.CaptureFixture[str], model: str) -> None:
    code, out, _ = outcome(capsys, model, *QUICK, "--scenario", "offline,single-stream", "--sweep", "batch=1,2,4")
    assert code == 0
    assert "; tried: 1: " in out and out.count("●") == 3
    assert max(len(line) for line in out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--scenario", "ofline"], "--scenario: no such scenario; got 'ofline'; expected 'offline' (did you mean"),
        (["--streams", "0"], "--streams"),
        (["--sweep", "batch"], "--sweep: cannot read this sweep"),
        (["--sweep", "width=8"], "a file has one width"),
        (["--ci-width", "1e9"], "--ci-width: cannot read this share; got '1e9'; expected e.g. 2%, below 100%"),
        (["--ci-width", "2"], "--ci-width: cannot read this share; got '2'; expected e.g. 2%, below 100%"),
        (["--machine", "nowhere.toml"], "nowhere.toml: no such machine file"),
    ],
)
def test_misuse_is_one_line(capsys: pytest.CaptureFixture[str], model: str, args: list[str], message: str) -> None:
    code, out, err = outcome(capsys, model, *QUICK, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_width_is_exported_where_a_target_runs_onnx(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"models": ["zoo:fcnn_digits"], "targets": ["torch-eager"], "sweeps": {"width": (32,)}, "seed": 3}
    with with_exports(options) as found:
        assert found == options
    with with_exports(options | {"targets": ["cpu", "torch-eager"]}) as found:
        source, exported = found["models"]
        assert source == "zoo:fcnn_digits" and isinstance(exported, Model)
        assert (exported.name, exported.width, exported.family, exported.group, exported.kind) == (
            "zoo:fcnn_digits?width=32.onnx", 32, "zoo:fcnn_digits.onnx", "width=32", "onnx",
        )  # fmt: skip
        assert Path(exported.path).is_file()
    assert not Path(exported.path).exists()
    assert capsys.readouterr().err == "exporting zoo:fcnn_digits at width 32\n"
