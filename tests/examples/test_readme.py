"""Every command and every piece of Python in README.md is run, in the order in which a reader would run it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line[2:] for language, text in BLOCKS if language == "console" for line in text.splitlines()]
# These two are what CI and test_demo.py run; here it is only checked that make knows them.
MADE = ("make demo", "make test")


def steps() -> list[tuple[str, str]]:
    """("toolkit", command), ("file", content) and ("python", code) in README's order."""
    found: list[tuple[str, str]] = []
    for language, text in BLOCKS:
        if language == "console":
            lines = [line.removeprefix("$ ").split("  #")[0].strip() for line in text.splitlines()]
            found += [("toolkit", line) for line in lines if line.startswith("toolkit ") and line != "toolkit demo"]
        elif language == "python":
            found.append(("file" if text.startswith("# model.py") else "python", text))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def execute(args: list[str], folder: Path) -> None:
    environment = {**os.environ, "TOOLKIT_CACHE": str(folder / "cache"), "COLUMNS": "80"}
    done = subprocess.run(args, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("kind", "text"), steps(), ids=lambda value: value.splitlines()[0][:60])
def test_readme_step(kind: str, text: str, folder: Path) -> None:
    if kind == "file":
        (folder / "model.py").write_text(text, encoding="utf-8")
    elif kind == "python":
        execute([sys.executable, "-c", text], folder)
    else:
        execute([sys.executable, "-m", "toolkit.cli.main", *shlex.split(text)[1:]], folder)


def test_no_command_in_readme_is_left_out() -> None:
    known = re.compile(r"^(toolkit |make (demo|test)\b|python3 -m venv |pip install )")
    assert [line for line in COMMANDS if not known.match(line)] == []


@pytest.mark.parametrize("command", MADE)
def test_make_knows_the_two_commands(command: str) -> None:
    assert any(line.startswith(command) for line in COMMANDS)
    done = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_pip_lines_name_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"'\.\[(\w+)\]'", README)
    assert named
    assert set(named) <= set(extras)
    assert (ROOT / "constraints.txt").is_file()


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).is_file(), link
