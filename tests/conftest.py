"""In CI hypothesis tries the same examples each time, so that a run tells about the change and not about luck."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True, scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A history of the tests' own: nothing that they or the commands they start measure goes into the user's."""
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    before = os.environ.get("TOOLKIT_HISTORY")
    os.environ["TOOLKIT_HISTORY"] = str(path)
    yield path
    if before is None:
        del os.environ["TOOLKIT_HISTORY"]
    else:
        os.environ["TOOLKIT_HISTORY"] = before
