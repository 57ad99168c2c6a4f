"""Imports point down, foreign packages stay in their rooms, nobody compares provider names; and the check can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import toolkit
from tests.architecture.layers import FLOOR_OF, imports, name_comparisons, violations
from toolkit.providers import registry
from toolkit.targets import ALIASES

PACKAGE = Path(toolkit.__file__).parent
ZOO = PACKAGE.parent / "model_zoo"
NAMES = (*registry.NAMES, *ALIASES)
# Where such a name means something else: torch's kinds of devices, names that people may bring, packages.
OTHER_MEANINGS = ("exporter/state.py:", "targets.py:", "errors.py:")


def test_imports_point_down_and_foreign_packages_stay_in_their_rooms() -> None:
    found = [*imports(PACKAGE), *imports(ZOO, "model_zoo/")]
    assert len(found) > 300  # the scan saw the code
    assert violations(found) == []


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__", "__main__"} - set(FLOOR_OF) == set()


# (file, its content, part of what the check has to say about it)
PLANTED = [
    ("providers/x.py", "import toolkit.runtime.loader", "runtime is above providers"),
    ("providers/x.py", "from toolkit import runtime", "runtime is above providers"),
    ("providers/x.py", "from ..runtime import loader", "runtime is above providers"),
    ("providers/x.py", "from toolkit.graph.files import load_model", "graph and providers are on one floor"),
    ("optimizer/x.py", "def f():\n    from toolkit.quantizer import api", "quantizer and optimizer are on one floor"),
    ("errors.py", "from toolkit.files import sha256", "files is above errors"),
    ("runtime/x.py", "import onnx", "onnx may be imported only in"),
    ("bundle/deep/x.py", "def f():\n    import onnx_ir as ir", "onnx_ir may be imported only in"),
    ("targets.py", "if TYPE_CHECKING:\n    import torch", "torch may be imported only in"),
    ("providers/cuda.py", "import torch", "torch may be imported only in"),
    ("providers/cuda.py", "import onnxruntime as ort", "onnxruntime may be imported only in"),
    ("profiler/x.py", "from openvino.properties import hint", "openvino may be imported only in"),
    ("quantizer/x.py", "import onnxruntime", "onnxruntime may be imported only in"),
    ("profiler/x.py", "import rich.table", "rich may be imported only in"),
    ("verifier/x.py", "import model_zoo.catalogue", "know the zoo"),
    ("files.py", "import requests", "no rule speaks of"),
]


@pytest.mark.parametrize(("file", "content", "expected"), PLANTED, ids=[f"{row[0]}: {row[1]}" for row in PLANTED])
def test_the_check_finds_a_planted_violation(tmp_path: Path, file: str, content: str, expected: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    found = violations(list(imports(tmp_path)))
    assert found
    assert all(expected in text and text.startswith(file) for text in found)


def test_the_check_lets_good_imports_pass(tmp_path: Path) -> None:
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter" / "sources.py").write_text(
        "import json, torch\nimport model_zoo\nfrom toolkit.verifier import api\nfrom . import parity\n"
    )
    assert violations(list(imports(tmp_path))) == []


def test_no_module_outside_providers_compares_provider_names() -> None:
    found = name_comparisons(PACKAGE, NAMES)
    assert [text for text in found if not text.startswith(("providers/", *OTHER_MEANINGS))] == []


@pytest.mark.parametrize(
    "content",
    [
        "if provider == 'cuda': pass",
        "fast = name in ('cpu', 'openvino')",
        "match provider:\n    case 'tensorrt': pass",
        "rules = {'cpu': 1, 'openvino': 2}[provider]",
    ],
)
def test_the_comparison_check_can_fail(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.py").write_text(content)
    assert name_comparisons(tmp_path, NAMES)
