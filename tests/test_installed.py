"""What is installed, too old, missing or clashing, found in metadata: here in folders made up for the test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import toolkit.installed as installed
from toolkit.installed import Problem


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages of its own, in place of all others."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    installed.requirements.cache_clear()
    return tmp_path


@pytest.fixture(autouse=True)
def _forget() -> object:
    yield
    installed.requirements.cache_clear()


def add(site: Path, name: str, version: str, imports: str = "", requires: tuple[str, ...] = ()) -> None:
    """Install a distribution that is nothing but its metadata."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    (folder / "top_level.txt").write_text(imports or name.replace("-", "_"))
    (folder / "RECORD").write_text("")


def test_two_wheels_in_one_place_clash(site: Path) -> None:
    add(site, "onnxruntime", "1.32.0", "onnxruntime")
    assert installed.clashes() == ()
    add(site, "onnxruntime-gpu", "1.31.1", "onnxruntime")
    assert installed.clashes() == (
        Problem(
            "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed and overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want",
        ),
    )


def test_packages_that_live_apart_do_not_clash(site: Path) -> None:
    add(site, "openvino", "2026.4.1", "openvino")
    add(site, "openvino-telemetry", "2025.2.0", "openvino_telemetry")
    add(site, "onnx", "1.23.2", "onnx")
    add(site, "onnx-ir", "1.1.0", "onnx_ir")
    assert installed.clashes() == ()


REQUIRES = (
    "numpy>=1.26",
    "onnxruntime>=1.24; extra == 'cpu'",
    "onnxruntime-gpu>=1.24 ; extra == 'gpu'",
    'torch>=2.9 ; extra == "export"',
    "onnx-toolkit[graph]; extra == 'export'",
    "nncf>=3.0; (python_version < '4') and extra == 'quantize'",
)


def test_requirements_are_read_with_floor_and_extra(site: Path) -> None:
    add(site, "onnx-toolkit", "0.1.0", "toolkit", REQUIRES)
    assert [(item.package, item.floor, item.extra) for item in installed.requirements()] == [
        ("numpy", "1.26", ""),
        ("onnxruntime", "1.24", "cpu"),
        ("onnxruntime-gpu", "1.24", "gpu"),
        ("torch", "2.9", "export"),
        ("nncf", "3.0", "quantize"),
    ]
    assert installed.extras() == ("cpu", "gpu", "export", "quantize")


def test_releases_below_the_floor_are_named(site: Path) -> None:
    add(site, "onnx-toolkit", "0.1.0", "toolkit", REQUIRES)
    add(site, "numpy", "2.4.6")
    add(site, "onnxruntime", "1.9.2")
    add(site, "torch", "2.13.0+cpu")
    assert installed.too_old() == (
        Problem("onnxruntime 1.9.2 is older than 1.24", "pip install -U 'onnxruntime>=1.24'"),
    )


def test_what_an_extra_would_bring(site: Path) -> None:
    add(site, "onnx-toolkit", "0.1.0", "toolkit", REQUIRES)
    add(site, "onnxruntime", "1.32.0")
    # onnxruntime-gpu is not missing beside onnxruntime: it would clash with it.
    assert installed.missing_by_extra(installed.extras()) == {"export": ("torch",), "quantize": ("nncf",)}


def test_without_metadata_nothing_is_known(site: Path) -> None:
    assert installed.requirements() == ()
    assert installed.version("numpy") is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2026.4.1-22061-abc", (2026, 4, 1)), ("2.13.0+cpu", (2, 13, 0)), ("1.24rc1", (1, 24)), ("nightly", ())],
)
def test_releases_are_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert installed.release(text) == numbers


def test_this_project_states_its_floors() -> None:
    floors = {item.package: item.floor for item in installed.requirements()}
    assert floors["onnxruntime"] == floors["onnxruntime-gpu"] == "1.24"
    assert installed.release(floors["onnxruntime"]) >= (1, 24)  # get_provider_graph_assignment_info
