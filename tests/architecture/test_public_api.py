"""The public names, each of which works after every module has been imported: no package may shadow a verb."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit
from tests.architecture.test_imports import modules

VERBS = ("load", "export", "optimize", "quantize", "verify", "evaluate", "profile")


def test_the_public_names_are_these() -> None:
    assert set(toolkit.__all__) == {"__version__", *VERBS}
    assert dir(toolkit) == sorted(toolkit.__all__)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_a_documented_function(verb: str) -> None:
    function = getattr(toolkit, verb)
    assert callable(function)
    assert function.__name__ == verb
    assert function.__doc__


def test_every_module_imports_and_verbs_are_functions_after_that() -> None:
    code = (
        f"import importlib, toolkit\nfor name in {modules(())!r}: importlib.import_module(name)\n"
        f"for verb in {VERBS!r}: assert type(getattr(toolkit, verb)).__name__ == 'function', verb"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_room_is_named_like_a_verb() -> None:
    rooms = {path.stem for path in Path(toolkit.__file__).parent.iterdir()}
    assert rooms & set(VERBS) == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        toolkit.exprot  # noqa: B018


def test_types_travel_with_the_package() -> None:
    assert (Path(toolkit.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("package", ["providers", "runtime", "bundle", "graph", "exporter", "cli"])
def test_packages_define_nothing_themselves(package: str) -> None:
    module = importlib.import_module(f"toolkit.{package}")
    assert Path(str(module.__file__)).read_text(encoding="utf-8").strip() == ""
