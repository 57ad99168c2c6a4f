"""The wheel carries the zoo and the targets inside the package, and works without a checkout beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder; built without isolation, since hatchling comes with the test extra."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_nothing_common_lands_at_the_top(unpacked: Path) -> None:
    assert sorted(path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")) == ["toolkit"]
    assert (unpacked / "toolkit" / "py.typed").is_file()


def test_the_installed_package_finds_its_zoo_and_targets(unpacked: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import toolkit; assert toolkit.__file__.startswith(sys.argv[1]), toolkit.__file__\n"
        "from toolkit.cli.main import run\n"
        "assert run(['targets']) == 0 and run(['zoo', 'list']) == 0\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(unpacked)], capture_output=True, text=True, cwd=unpacked.parent
    )
    assert done.returncode == 0, done.stderr
    assert "cpu-fp32" in done.stdout
    assert "resnet50" in done.stdout
