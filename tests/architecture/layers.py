"""Which module may import which: the floors of the house, and the rooms in which each foreign package may be used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

# The floors from the ground up; the rooms of one floor do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("files", "machine", "installed"),
    ("tensors", "onnxfile", "stamps"),
    ("targets", "preprocess", "functions"),
    ("data",),
    ("graph", "providers", "bundle"),
    ("runtime",),
    ("verifier", "evaluator", "profiler"),
    ("exporter", "optimizer", "quantizer"),
    ("report", "tuner"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# package: where it may be imported, at the top of a file or inside a function. A name that ends in a slash is a folder.
FOREIGN: dict[str, tuple[str, ...]] = {
    "torch": ("exporter/", "model_zoo/", "providers/torch_.py"),
    "torchvision": ("exporter/", "model_zoo/"),
    "transformers": ("exporter/", "model_zoo/"),
    "safetensors": ("exporter/", "model_zoo/"),
    "tokenizers": ("exporter/", "model_zoo/"),
    "onnxruntime": ("providers/onnxruntime_.py",),
    "onnxruntime.quantization": ("quantizer/",),  # a library of graph rewrites, not the engine
    "openvino": ("providers/openvino_.py", "quantizer/"),
    "nncf": ("quantizer/",),
    "tensorrt": ("providers/",),
    "onnx": ("graph/", "exporter/", "optimizer/", "quantizer/"),
    "google": ("graph/",),
    "onnx_ir": ("graph/", "verifier/", "exporter/", "optimizer/", "quantizer/"),
    "onnxscript": ("graph/", "exporter/", "optimizer/", "quantizer/"),
    "click": ("cli/",),
    "rich": ("cli/", "report/"),
    "sklearn": ("evaluator/", "model_zoo/"),
    "PIL": ("data/", "preprocess/", "preprocess.py"),
    "ml_dtypes": ("",),
    "msgspec": ("",),
    "numpy": ("",),
    "psutil": ("profiler/",),
}
# What knows the zoo: the one file, or the one package, of the exporter that opens sources; the commands that list and
# train it, and show it.
ZOO_KNOWERS = ("exporter/sources.py", "exporter/sources/", "cli/zoo.py", "cli/demo", "model_zoo/")


@dataclass(frozen=True)
class Import:
    """One import: ``module`` as imported, in ``file`` (relative to the package's folder), on ``line``."""

    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports(folder: Path, prefix: str = "") -> Iterator[Import]:
    """All imports in the Python files below ``folder``, those inside functions and type checking blocks included."""
    for path in sorted(folder.rglob("*.py")):
        file = prefix + path.relative_to(folder).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (Import(file, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = _absolute(node, file)
                yield Import(file, node.lineno, module)
                # ``from toolkit import machine`` imports toolkit.machine.
                yield from (Import(file, node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _absolute(node: ast.ImportFrom, file: str) -> str:
    if not node.level:
        return node.module or ""
    package = ["toolkit", *file.split("/")[: -node.level]]
    return ".".join([*package, *([node.module] if node.module else [])])


def violations(found: list[Import]) -> list[str]:
    """What breaks the rules, in words."""
    return [
        f"{item}: {reason}"
        for item in found
        for reason in (_floor_problem(item), _foreign_problem(item), _zoo_problem(item))
        if reason
    ]


def _room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def _floor_problem(item: Import) -> str:
    parts = item.module.split(".")
    own, other = _room(item.file), parts[1] if len(parts) > 1 and parts[0] == "toolkit" else ""
    if own not in FLOOR_OF or other not in FLOOR_OF or own == other:
        return ""
    if FLOOR_OF[other] > FLOOR_OF[own]:
        return f"{other} is above {own}"
    return f"{other} and {own} are on one floor" if FLOOR_OF[other] == FLOOR_OF[own] else ""


def _foreign_problem(item: Import) -> str:
    package = item.module.split(".")[0]
    if package in ("toolkit", "model_zoo") or package in sys.stdlib_module_names:
        return ""
    rules = [name for name in FOREIGN if item.module == name or item.module.startswith(f"{name}.")]
    if not rules:
        return "a package that no rule speaks of"
    if any(_lies_in(item.file, FOREIGN[name]) for name in rules):
        return ""
    return f"{package} may be imported only in {', '.join(FOREIGN[max(rules, key=len)])}"


def name_comparisons(folder: Path, names: Collection[str]) -> list[str]:
    """Places below ``folder`` where behaviour hangs on one of ``names``: ``==``, ``in``, ``match``, a table of them."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(folder).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare | ast.MatchValue):
                texts = {item.value for item in ast.walk(node) if isinstance(item, ast.Constant)}
                found += [f"{file}:{node.lineno} compares with {name!r}" for name in names if name in texts]
            elif isinstance(node, ast.Dict):
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)} & set(names)
                found += [f"{file}:{node.lineno} chooses by {', '.join(sorted(keys))}"] if len(keys) > 1 else []
    return found


def _zoo_problem(item: Import) -> str:
    is_zoo = item.module.startswith(("model_zoo", "toolkit.model_zoo"))
    return "only exporter/sources and cli/zoo know the zoo" if is_zoo and not _lies_in(item.file, ZOO_KNOWERS) else ""


def _lies_in(file: str, places: tuple[str, ...]) -> bool:
    return any(file == place or (not place.endswith(".py") and file.startswith(place)) for place in places)
