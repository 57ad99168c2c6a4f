"""``toolkit doctor`` and ``toolkit targets``: 80 columns, exit 0, a reason and a remedy for whatever is not here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.test_installed import add
from toolkit.cli.doctor import doctor, examine, table
from toolkit.cli.layout import columns, paragraph, rows
from toolkit.cli.targets import targets
from toolkit.providers import nvidia, registry
from toolkit.targets import shipped_targets


def test_the_doctors_json() -> None:
    done = CliRunner().invoke(doctor, ["--format", "json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["schema_version"] == 1
    assert found["cpu"]["usable_cores"] >= 1
    assert set(found["cpu"]) >= {"model", "architecture", "features", "int8", "bfloat16", "cores", "container_quota"}
    assert found["memory_bytes"] > 1e8
    assert [item["provider"] for item in found["providers"]] == list(registry.NAMES)
    for item in found["providers"]:
        assert item["version"] if item["available"] else item["reason"] and item["remedy"]
    assert found["packages"]["numpy"]


def test_the_doctors_table() -> None:
    done = CliRunner().invoke(doctor, [])
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for part in ("CPU", "Cores", "Memory", "GPU", "Providers", "Packages", "Problems"):
        assert part in done.stdout
    for name in registry.NAMES:
        assert f"  {name}" in done.stdout


def test_a_machine_with_gpus_and_clashing_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = nvidia.Gpu("NVIDIA H200", "9.0", 150_000_000_000, "00")
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver((13, 1), (gpu, gpu)))
    monkeypatch.setattr(nvidia, "kernel_module", lambda: "580.159.03")
    add(tmp_path, "onnxruntime", "1.32.0")
    add(tmp_path, "onnxruntime-gpu", "1.31.1", "onnxruntime")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    report = examine()
    text = table(report)
    assert "GPU 1" in text
    assert "NVIDIA H200, 150 GB, 9.0" in text
    assert "driver 580.159.03, CUDA up to 13.1" in text
    assert any("overwrite each other's files" in problem.what for problem in report.problems)
    assert "overwrite each other's" in " ".join(text.split())


def test_the_targets_json() -> None:
    done = CliRunner().invoke(targets, ["--format", "json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)["targets"]
    assert [item["name"] for item in found] == list(shipped_targets())
    for item in found:
        assert item["version"] if item["available"] else item["reason"] and item["remedy"]
    assert next(item for item in found if item["name"] == "cuda-tf32")["inference_precision"] == "tf32"


def test_the_targets_table() -> None:
    done = CliRunner().invoke(targets, [])
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name, target in shipped_targets().items():
        assert any(line.startswith(name) and target.provider in line for line in done.stdout.splitlines())


def test_rows_are_aligned_and_nothing_is_cut_off() -> None:
    command = "pip install 'a-very-long-package-name-that-does-not-fit-anywhere[with,extras]'"
    assert rows([("a", "one two three"), ("long", "x")], width=12) == [
        "a     one",
        "      two",
        "      three",
        "long  x",
    ]
    assert command.split()[-1] in "".join(paragraph(command, width=20))
    assert columns([("a", "bb"), ("ccc", "d")]) == ["a    bb", "ccc  d"]
    assert columns([]) == []
