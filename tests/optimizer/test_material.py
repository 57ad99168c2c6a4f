"""Real models, where the folder with them is there; everything they showed is also tested on small ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.graph.cost import cost
from toolkit.graph.facts import facts
from toolkit.graph.files import load_model
from toolkit.optimizer.api import optimize

FOLDER = Path(os.environ.get("TOOLKIT_MATERIAL") or Path(__file__).parents[3] / "shared" / "material")
MODELS = sorted(FOLDER.rglob("*.onnx")) if FOLDER.is_dir() else []

pytestmark = pytest.mark.skipif(
    not MODELS, reason=f"no real models in {FOLDER} (TOOLKIT_MATERIAL names another folder)"
)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_real_model_loads_costs_something_gets_no_larger_and_computes_the_same(path: Path, tmp_path: Path) -> None:
    found = facts(path)
    assert found.inputs
    sizes = {spec.shape[0]: 1 for spec in found.inputs if spec.shape and isinstance(spec.shape[0], str)}
    assert cost(load_model(path), sizes).flops > 0
    huge = any(isinstance(dim, int) and dim > 100_000 for spec in found.inputs for dim in spec.shape or ())
    # A batch of 789444 takes five seconds to compare, and a batch of one says enough about the others.
    report = optimize(path, tmp_path / "small.onnx", check=not huge, check_dims=sizes)
    assert report.nodes_after <= report.nodes_before
    assert report.size_bytes_after <= report.size_bytes_before
    again = optimize(tmp_path / "small.onnx", tmp_path / "again.onnx", check=False)
    assert again.sha256 == report.sha256
