"""Whose code is whose, by file and by name."""

from __future__ import annotations

import functools
import random
import sys
import types

import numpy as np
import pytest
import torch

from toolkit.exporter.owncode import globals_used, is_installed, is_library, is_stdlib, wrapped


def test_python_itself_packages_and_a_persons_code_are_told_apart() -> None:
    assert is_stdlib(random.__file__) and not is_installed(random.__file__)
    assert is_installed(torch.__file__) and not is_stdlib(torch.__file__)
    assert is_installed(np.__file__)
    for own in (__file__, f"{sys.prefix}/src/net.py", f"{sys.base_prefix}/src/net.py", f"{sys.prefix}-mine/net.py"):
        assert not is_stdlib(own) and not is_installed(own)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("torch.nn", True), ("toolkit.exporter", True), ("toolkit_factory_net", False), ("torchlike", False),
     ("random", True), ("__main__", False)],
)  # fmt: skip
def test_names_are_compared_whole(name: str, expected: bool) -> None:
    assert is_library(name) == expected


def test_what_is_wrapped_is_found() -> None:
    def plain() -> None: ...

    class Holder:
        bound = plain

    holder = Holder()
    assert wrapped(staticmethod(plain)) == [plain]
    assert wrapped(property(plain)) == [plain, None, None]
    assert wrapped(functools.cache(plain)) == [plain]
    assert wrapped(functools.partial(plain, 1, n=2)) == [plain, (1,), {"n": 2}]
    assert wrapped(holder.bound) == [plain, holder]
    assert wrapped(plain) == wrapped(3) == []


def test_globals_of_functions_inside_and_of_own_modules_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = types.ModuleType("helper_of_mine")
    helper.N = 3  # type: ignore[attr-defined]
    space = {"helper": helper, "M": 1, "random": random}
    exec("def outer():\n    def inner():\n        return helper.N + M + random.random()\n    return inner", space)
    found = dict(globals_used(space["outer"]))  # type: ignore[arg-type]
    assert found["N"] == 3 and found["M"] == 1
    assert found["random"] is random
