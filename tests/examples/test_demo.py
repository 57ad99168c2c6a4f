"""The demo, run as a person runs it, with less time for measuring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit.cli.demo import MINIMUM_ACCURACY, table
from toolkit.cli.demo_chain import Demo, available_targets


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "toolkit.cli.main", "demo", "-o", "out", "--budget", "12", "--format", "json"]
    environment = {**os.environ, "TOOLKIT_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def rows(outcome: tuple[Path, dict[str, Any]], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in outcome[1]["rows"] if all(row[key] == value for key, value in wanted.items())]


@pytest.mark.parametrize("model", list(MINIMUM_ACCURACY))
def test_float_models_learn_and_int8_loses_at_most_a_point(outcome: tuple[Path, dict[str, Any]], model: str) -> None:
    floats = rows(outcome, model=model, precision="float32")
    assert min(row["accuracy"] for row in floats) >= MINIMUM_ACCURACY[model]
    integers = rows(outcome, model=model, precision="int8")
    assert {row["target"] for row in integers} == {"cpu-int8", "openvino-int8"}
    for row in integers:
        assert row["accuracy"] >= floats[0]["accuracy"] - 0.01 - 1e-9, row


def test_every_case_has_a_latency_and_a_ratio_with_an_interval(outcome: tuple[Path, dict[str, Any]]) -> None:
    for row in outcome[1]["rows"]:
        assert row["p50_ns"] > 0
        assert row["p99_ns"] or row["p99_withheld"]
        if row["target"] != "torch-eager":
            assert row["ratio"] > 0
            # A loaded machine gets through too few rounds for an interval; then there is none, and no verdict.
            low, high = row["ratio_ci"] or (0, float("inf"))
            assert low <= row["ratio"] <= high
            assert row["ratio_ci"] or row["verdict"] == "no significant difference"


def test_one_file_per_provider_is_kept_and_bundled(outcome: tuple[Path, dict[str, Any]]) -> None:
    folder, result = outcome
    for model, bundle in result["bundles"].items():
        kept = [row for row in rows(outcome, model=model) if row["kept"]]
        assert sorted(row["target"].split("-")[0] for row in kept) == ["cpu", "openvino"]
        manifest = json.loads((folder / bundle / "manifest.json").read_text())
        measured = {item["target"] for variant in manifest["variants"] for item in variant["measurements"]}
        assert {row["target"] for row in kept} <= measured


def test_the_fresh_process_classifies_without_torch(outcome: tuple[Path, dict[str, Any]]) -> None:
    fresh = outcome[1]["fresh_process"]
    assert fresh["torch_loaded"] is False
    assert fresh["right"] / fresh["images"] >= MINIMUM_ACCURACY["cnn"] - 0.01


def test_what_is_not_here_is_named_with_reason_and_remedy(outcome: tuple[Path, dict[str, Any]]) -> None:
    assert outcome[1]["unavailable"] == available_targets()[1]
    assert all("; " in why for why in outcome[1]["unavailable"].values())


def test_the_table_fits_80_columns(outcome: tuple[Path, dict[str, Any]]) -> None:
    import msgspec

    text = table(msgspec.convert(outcome[1], Demo))
    assert max(map(len, text.splitlines())) <= 80
    assert (outcome[0] / "out" / "report.html").is_file()
