"""What importing costs: ``import toolkit``, ``toolkit --help`` and a session load nothing they do not need."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import toolkit
from tests.conformance.models import LINEAR
from toolkit.providers import registry
from toolkit.providers.base import Available

PACKAGE = Path(toolkit.__file__).parent
ENGINES = ("onnxruntime", "openvino", "torch", "nncf", "tensorrt")
GRAPHS = ("onnx", "onnx_ir", "onnxscript")
SCREENS = ("click", "rich")
OTHERS = ("sklearn", "scipy", "transformers", "PIL", "pandas")


def loaded_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_toolkit_loads_nothing_else() -> None:
    found = loaded_after("import toolkit")
    assert not found & {*ENGINES, *GRAPHS, *SCREENS, *OTHERS, "numpy", "msgspec"}


def test_help_loads_click_alone() -> None:
    found = loaded_after("from toolkit.cli.main import run\nassert run(['--help']) == 0")
    assert "click" in found
    assert not found & {*ENGINES, *GRAPHS, *OTHERS, "rich", "numpy", "msgspec", "asyncio"}


@pytest.mark.parametrize(("provider", "engine"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_a_session_loads_its_engine_alone(provider: str, engine: str, tmp_path: Path) -> None:
    if not isinstance(registry.provider(provider).probe(), Available):
        pytest.skip(f"{provider} is not available")
    path = LINEAR.write(tmp_path)
    found = loaded_after(
        "import numpy as np, toolkit\n"
        f"with toolkit.load({str(path)!r}, provider={provider!r}) as session:\n"
        "    session({'x': np.ones((1, 4), np.float32)}); session.execution"
    )
    assert engine in found
    assert not found & ({*ENGINES, *GRAPHS, *SCREENS, *OTHERS} - {engine})


def test_listing_targets_loads_no_torch() -> None:
    assert "torch" not in loaded_after("from toolkit.targets import shipped_targets; shipped_targets()")


# Everything that an extra brings; an embedded install has none of it.
EXTRAS = (*ENGINES, *GRAPHS, *OTHERS, "psutil", "ml_dtypes", "safetensors", "tokenizers")
_BLOCK = f"""
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
# What works on graphs or modules, and so may ask for an extra as soon as it is imported.
NEED_EXTRAS = (
    "graph", "exporter", "optimizer", "quantizer", "verifier", "evaluator", "profiler", "model_zoo", "cli.profile",
    "cli.accuracy", "cli.check", "cli.demo", "cli.scenarios", "cli.scoring",
)  # fmt: skip


def modules(skip: tuple[str, ...]) -> list[str]:
    """Dotted names of all modules, but those that begin with one of ``skip``."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        if not name.startswith(skip) or not skip:
            names.append(f"toolkit.{name}" if name else "toolkit")
    return names


def test_every_module_of_an_embedded_install_imports_without_extras() -> None:
    listed = modules(NEED_EXTRAS)
    assert "toolkit.providers.openvino" in listed
    assert "toolkit.cli.doctor" in listed
    loaded_after(f"{_BLOCK}\nimport importlib\nfor name in {listed!r}: importlib.import_module(name)")


def test_the_block_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'onnx"):
        loaded_after(f"{_BLOCK}\nimport onnx")


def test_an_embedded_install_says_what_is_missing(tmp_path: Path) -> None:
    path = LINEAR.write(tmp_path)
    code = (
        f"{_BLOCK}\nimport toolkit, toolkit.errors\n"
        f"try: toolkit.load({str(path)!r}, provider='cpu')\n"
        "except toolkit.errors.ToolkitError as exc: assert 'onnx-toolkit[cpu]' in str(exc), exc\n"
        "else: raise SystemExit('it opened')"
    )
    loaded_after(code)


@pytest.mark.parametrize("verb", ["optimize", "export"])
def test_a_verb_without_its_extra_says_which_one(verb: str) -> None:
    code = (
        f"{_BLOCK}\nimport toolkit, toolkit.errors\n"
        f"try: toolkit.{verb}\n"
        "except toolkit.errors.MissingDependency as exc: assert 'onnx-toolkit[' in str(exc), exc\n"
        "else: raise SystemExit('it is there')\n"
        "from toolkit.cli.main import run\n"
        f"assert run(['{verb}', 'a.onnx', '-o', 'b.onnx']) == 1"
    )
    loaded_after(code)


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def test_help_costs_at_most_two_and_a_half_times_what_click_costs() -> None:
    bare = [sys.executable, "-c", "import click"]
    ours = [sys.executable, "-m", "toolkit.cli.main", "--help"]
    ratios = []
    for _ in range(4):  # a ratio of medians measured in turns; a busy machine gets another chance
        pairs = [(seconds(ours), seconds(bare)) for _ in range(7)]
        ratios.append(statistics.median(own for own, _ in pairs) / statistics.median(other for _, other in pairs))
        if ratios[-1] <= 2.5:
            return
    pytest.fail(f"toolkit --help takes {min(ratios):.2f} times a bare import of click")
