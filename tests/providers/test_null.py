"""The null provider: sessions without an engine, for tests of everything around one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import InvalidInput, InvalidModel
from toolkit.providers import registry

DESCRIPTION = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "dtype": "int64", "shape": ["batch"]}],
}


def write(folder: Path, content: str) -> Path:
    path = folder / "model.json"
    path.write_text(content)
    return path


def test_it_answers_zeros_of_the_right_kind(tmp_path: Path) -> None:
    with registry.provider("null").open(write(tmp_path, json.dumps(DESCRIPTION))) as session:
        answer = session({"x": np.ones((3, 4), np.float32)})
        assert answer["y"].dtype == np.int64
        np.testing.assert_array_equal(answer["y"], np.zeros(3))
        assert "nothing was computed" in session.execution.notes
        with pytest.raises(InvalidInput, match="wrong rank"):
            session({"x": np.ones(4, np.float32)})


@pytest.mark.parametrize("content", ["{", "[]", '{"inputs": []}', '{"inputs": 3, "outputs": []}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InvalidModel, match="not a null model") as raised:
        registry.provider("null").open(path)
    assert str(path) in str(raised.value)
