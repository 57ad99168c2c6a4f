"""State and chance in a person's own file, wherever Python lets code keep them: ``FILE.py:Class`` is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import toolkit
from toolkit.errors import ParityError

HEAD = """
import functools
import itertools
import logging
import random
import secrets
import types
import uuid

import numpy as np
import torch
from torch import nn

import beside

INPUTS = ["x:float32[batch,4]"]
COUNT = 0
SEEN = torch.zeros(())
HELPER = nn.BatchNorm1d(4)
LOG = logging.getLogger("net")


class Keeper:
    calls = 0
    __slots__ = ("kept",)

    def __init__(self):
        self.kept = 0

    def note(self):
        global COUNT
        COUNT += 1


KEEPER = Keeper()


class Base(nn.Module):
    N = 0

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
"""

# Each is the rest of a file that makes ``Net``; ``rare`` ones answer differently only after very many calls.
STATE = {
    "global counter with a rare branch": """
class Net(Base):
    def forward(self, x):
        global COUNT
        COUNT += 1
        return x if COUNT > 1_000_000 else self.linear(x)
""",
    "global counter through globals()": """
class Net(Base):
    def forward(self, x):
        globals()["COUNT"] += 1
        return self.linear(x)
""",
    "nonlocal counter": """
def make():
    count = 0
    class Net(Base):
        def forward(self, x):
            nonlocal count
            count += 1
            return x if count > 1_000_000 else self.linear(x)
    return Net
Net = make()
""",
    "closure dict": """
def make():
    kept, other = {"calls": 0}, 1
    class Net(Base):
        def forward(self, x):
            kept["calls"] += other
            return self.linear(x)
    return Net
Net = make()
""",
    "closure tensor in place": """
def make():
    kept = torch.zeros(())
    class Net(Base):
        def forward(self, x):
            kept.add_(1)
            return torch.where(kept > 1e6, x, self.linear(x))
    return Net
Net = make()
""",
    "global tensor in place": """
class Net(Base):
    def forward(self, x):
        SEEN.add_(1)
        return torch.where(SEEN > 1e6, x, self.linear(x))
""",
    "class attribute": """
class Net(Base):
    def forward(self, x):
        type(self).N += 1
        return self.linear(x)
""",
    "attribute of a base class": """
class Net(Base):
    def forward(self, x):
        Base.N += 1
        return self.linear(x)
""",
    "attribute of another class": """
class Other:
    n = 0
class Net(Base):
    def forward(self, x):
        Other.n += 1
        return self.linear(x)
""",
    "function attribute": """
def counted(x):
    counted.calls += 1
    return x
counted.calls = 0
class Net(Base):
    def forward(self, x):
        return self.linear(counted(x))
""",
    "mutable default": """
class Net(Base):
    def forward(self, x, seen=[]):
        seen.append(1)
        return self.linear(x)
""",
    "forward of a base class": """
class Middle(Base):
    def forward(self, x):
        global COUNT
        COUNT += 1
        return self.linear(x)
class Net(Middle):
    pass
""",
    "forward under no_grad": """
class Net(Base):
    @torch.no_grad()
    def forward(self, x):
        global COUNT
        COUNT += 1
        return self.linear(x)
""",
    "forward under an own decorator": """
def logged(function):
    calls = []
    @functools.wraps(function)
    def inner(*args, **named):
        calls.append(1)
        return function(*args, **named)
    return inner
class Net(Base):
    @logged
    def forward(self, x):
        return self.linear(x)
""",
    "static method": """
class Net(Base):
    @staticmethod
    def note():
        global COUNT
        COUNT += 1
    def forward(self, x):
        self.note()
        return self.linear(x)
""",
    "class method": """
class Net(Base):
    @classmethod
    def note(cls):
        global COUNT
        COUNT += 1
    def forward(self, x):
        self.note()
        return self.linear(x)
""",
    "property": """
class Net(Base):
    @property
    def factor(self):
        global COUNT
        COUNT += 1
        return 1.0
    def forward(self, x):
        return self.linear(x) * self.factor
""",
    "function inside forward": """
class Net(Base):
    def forward(self, x):
        def note():
            global COUNT
            COUNT += 1
        note()
        return self.linear(x)
""",
    "function held as an attribute": """
class Net(Base):
    def __init__(self):
        super().__init__()
        calls = []
        self.note = lambda: calls.append(1)
    def forward(self, x):
        self.note()
        return self.linear(x)
""",
    "partial": """
class Net(Base):
    def __init__(self):
        super().__init__()
        self.note = functools.partial(list.append, [])
    def forward(self, x):
        self.note(1)
        return self.linear(x)
""",
    "method of another object": """
class Net(Base):
    def forward(self, x):
        KEEPER.note()
        return self.linear(x)
""",
    "slot of another object": """
class Net(Base):
    def forward(self, x):
        KEEPER.kept += 1
        return self.linear(x)
""",
    "another file": """
class Net(Base):
    def forward(self, x):
        beside.N += 1
        return self.linear(x)
""",
    "function of another file": """
class Net(Base):
    def forward(self, x):
        beside.note()
        return self.linear(x)
""",
    "numpy's former generator": """
class Net(Base):
    def __init__(self):
        super().__init__()
        self.draw = np.random.RandomState(0)
    def forward(self, x):
        return x if self.draw.rand() < 1e-9 else self.linear(x)
""",
    "module that torch does not know of": """
class Net(Base):
    def forward(self, x):
        return HELPER.train()(self.linear(x))
""",
    "module in a list, in training mode": """
class Net(Base):
    def __init__(self):
        super().__init__()
        self.norms = [nn.BatchNorm1d(4)]
    def forward(self, x):
        return self.norms[0](self.linear(x))
""",
}

ITERATORS = {
    "global": """
ROUNDS = itertools.cycle([1.0] * 500 + [2.0])
class Net(Base):
    def forward(self, x):
        return self.linear(x) * next(ROUNDS)
""",
    "attribute": """
class Net(Base):
    def __init__(self):
        super().__init__()
        self.factors = iter([1.0] * 500 + [2.0] * 500)
    def forward(self, x):
        return self.linear(x) * next(self.factors)
""",
    "generator in a closure": """
def make():
    factors = (1.0 if n < 100 else 2.0 for n in range(10_000))
    class Net(Base):
        def forward(self, x):
            return self.linear(x) * next(factors)
    return Net
Net = make()
""",
}

CHANCE = {
    "secrets": "secrets.randbelow(10**9) == 0",
    "uuid": "uuid.uuid4().int == 0",
    "numpy's unseeded generator": "np.random.default_rng().random() < 1e-9",
    "numpy's former unseeded generator": "np.random.RandomState().rand() < 1e-9",
    "Python's unseeded generator": "random.Random().random() < 1e-9",
    "SystemRandom": "random.SystemRandom().random() < 1e-9",
    "a clock behind the standard library": "uuid.uuid1().int == 0",
}

PURE = {
    "constants, caches by size and logging": """
TABLE = {"factor": 2.0}
class Net(Base):
    @functools.cached_property
    def scale(self):
        return TABLE["factor"]
    @torch.no_grad()
    def forward(self, x):
        LOG.warning("called with %s", x.shape)
        return self.linear(x) * self.scale * beside.WIDTH
""",
    "seeded generators": """
class Net(Base):
    def forward(self, x):
        return self.linear(x) * float(np.random.default_rng(3).random()) * random.Random(3).random()
""",
    "a helper that torch does not know of": """
class Net(Base):
    def __init__(self):
        super().__init__()
        self.norms = [nn.BatchNorm1d(4).eval()]
    def forward(self, x):
        return self.norms[0](self.linear(x))
""",
}


def write(folder: Path, body: str) -> str:
    (folder / "beside.py").write_text("N = 0\nWIDTH = 4\ndef note():\n    global N\n    N += 1\n")
    path = folder / "net.py"
    path.write_text(HEAD + body)
    return f"{path}:Net"


@pytest.fixture(autouse=True)
def _beside_is_read_anew() -> Iterator[None]:
    sys.modules.pop("beside", None)  # other tests have a file of this name too
    yield
    sys.modules.pop("beside", None)


@pytest.mark.parametrize("name", STATE)
def test_state_is_refused_wherever_it_is_kept(name: str, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"changes its own state|writes into its own state") as caught:
        toolkit.export(write(tmp_path, STATE[name]), output=tmp_path / "out.onnx")
    assert "\n" not in str(caught.value) and not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("name", ITERATORS)
def test_iterators_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"holds an iterator.*keep a list or tuple instead"):
        toolkit.export(write(tmp_path, ITERATORS[name]), output=tmp_path / "out.onnx")


@pytest.mark.parametrize("name", CHANCE)
def test_chance_is_refused_however_rare_its_effect(name: str, tmp_path: Path) -> None:
    body = f"class Net(Base):\n    def forward(self, x):\n        return x if {CHANCE[name]} else self.linear(x)\n"
    with pytest.raises(ParityError, match=r"reads a clock or an entropy source; got \w+\(\) at net\.py:\d+"):
        toolkit.export(write(tmp_path, body), output=tmp_path / "out.onnx")


@pytest.mark.parametrize("name", PURE)
def test_functions_of_their_inputs_are_exported(name: str, tmp_path: Path) -> None:
    assert toolkit.export(write(tmp_path, PURE[name]), output=tmp_path / "out.onnx").cases
