"""A measurement says where it was taken; another machine is told from this one."""

from __future__ import annotations

import msgspec
import pytest

from toolkit.runtime.fingerprint import alike, here
from toolkit.targets import Target


def test_a_fingerprint_names_what_decides_speed() -> None:
    found = here(Target(name="cpu", provider="cpu", threads=3))
    assert found.cores == 3
    assert all((found.cpu, found.device, found.engine, found.system))
    assert alike(found, found)


@pytest.mark.parametrize("change", [{"cpu": "x"}, {"cores": 99}, {"device": "GPU"}, {"system": "x"}])
def test_other_hardware_is_not_alike(change: dict[str, object]) -> None:
    found = here(Target(name="cpu", provider="cpu"))
    assert not alike(found, msgspec.structs.replace(found, **change))


def test_another_engine_version_is_alike_and_no_fingerprint_is_not() -> None:
    found = here(Target(name="cpu", provider="cpu"))
    assert alike(found, msgspec.structs.replace(found, engine="0"))
    assert not alike(found, None)
    assert not alike(None, None)
