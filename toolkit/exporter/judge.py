"""Runs a candidate file on every case and holds its answers against the module's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from toolkit.errors import EngineError, NotApplicable, ToolkitError, UsageError
from toolkit.exporter.halves import has_halves, single_precision
from toolkit.exporter.parity import FLOOR_ULP, MULTIPLE, OutputParity, Rule, compare
from toolkit.exporter.reference import Reference
from toolkit.exporter.strategies.base import StrategyFailed
from toolkit.graph.files import load_model, save_model
from toolkit.providers import registry
from toolkit.providers.session import Session
from toolkit.tensors import FLOATS, Array, Feeds, TensorSpec, numpy_dtype
from toolkit.verifier.ties import tied_places

# Providers that run any standard graph on any machine, in order of preference.
_ENGINES = ("cpu", "openvino")
# Where there is no float64 to tell torch's own error from, jittered runs stand for it; they see less of it.
_ROUGH_FLOOR_ULP = 64.0
# The part of an output that rounding may move before a case with odd values has nothing to say.
_ROUNDING_RULES = 2.0**-10


class Case(msgspec.Struct, frozen=True):
    """One set of inputs; ``odd`` where their values are none that anybody would feed, such as all zeros."""

    label: str
    dims: dict[str, int]
    feeds: dict[str, Array]
    odd: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What the module says to a case: in its own precision and exactly."""

    case: Case
    own: dict[str, Array]
    exact: dict[str, Array]


class CaseParity(msgspec.Struct, frozen=True):
    """One case, judged."""

    label: str
    dims: dict[str, int]
    outputs: tuple[OutputParity, ...]


class Verdict(msgspec.Struct, frozen=True):
    """What was measured, on which engine, and what a person should know about it."""

    cases: tuple[CaseParity, ...]
    engine: str
    notes: tuple[str, ...]


def answer(reference: Reference, cases: Sequence[Case]) -> list[Answer]:
    """Ask the module. The exact answers come in one go, since weights are exchanged for them."""
    exact = reference.exact([case.feeds for case in cases])
    if reference.precision == "float64":
        own = [reference.own(case.feeds) for case in cases]
    else:
        own = [reference.rounding(case.feeds, wanted) for case, wanted in zip(cases, exact, strict=True)]
    return [Answer(*item) for item in zip(cases, own, exact, strict=True)]


def judge(path: Path, answers: Sequence[Answer], reference: Reference) -> Verdict:
    """Run ``path`` on all cases.

    Args:
        path: the candidate.
        answers: what the module says; the first is the usual case.
        reference: asked again where a case seems to fail.

    Raises:
        StrategyFailed: it does not run, or a case fails, with case, output and numbers.
    """
    with opened(path) as (session, engine):
        judging = _Judging(session, path, reference, answers[0].exact)
        return Verdict(tuple(judging.case(item) for item in answers), engine, tuple(judging.notes))


class _Judging:
    """One candidate, opened."""

    def __init__(self, session: Session, path: Path, reference: Reference, usual: Mapping[str, Array]) -> None:
        self._session, self._path, self._reference, self._usual = session, path, reference, usual
        self._rounding: tuple[str, dict[str, Array]] = ("", {})
        self.notes: list[str] = []

    def _jittered(self, item: Answer) -> dict[str, Array]:
        """Jittered answers of one case, run once for all its outputs."""
        label = f"{item.case.label} {item.case.dims}"
        if self._rounding[0] != label:
            self._rounding = (label, self._reference.rounding(item.case.feeds, item.exact))
        return self._rounding[1]

    def case(self, item: Answer) -> CaseParity:
        sizes = " ".join(f"{name}={size}" for name, size in item.case.dims.items())
        place = f"at {item.case.label}{f' ({sizes})' if sizes and '(' not in item.case.label else ''}"
        try:
            got = self._session(_fed(self._session.inputs, item.case.feeds))
        except ToolkitError as exc:
            raise StrategyFailed(f"the graph does not run {place}: {_said(exc)}") from exc
        outputs = tuple(self._output(name, item, got[name]) for name in item.exact)
        for found in outputs:
            if found.failure:
                raise StrategyFailed(f"output '{found.name}' differs {place}: {found.failure}")
        return CaseParity(item.case.label, item.case.dims, outputs)

    def _output(self, name: str, item: Answer, got: Array) -> OutputParity:
        own = item.own[name]
        if got.dtype != own.dtype and not _widened(own, got):
            return OutputParity(name, failure=f"type {got.dtype.name} instead of {own.dtype.name}")
        exact = self._reference.precision == "float64"
        rule = Rule(
            FLOOR_ULP if exact else _ROUGH_FLOOR_ULP, own.dtype.name if _widened(own, got) else "", self._usual[name]
        )
        found = compare(name, item.exact[name], own, got, rule)
        if not found.failure:
            return found
        if own.dtype.name not in FLOATS:
            return OutputParity(name) if _all_tied(self._path, item, name, got) else found
        jittered = self._jittered(item)[name]
        again = compare(name, item.exact[name], jittered, got, msgspec.structs.replace(rule, jittered=True))
        if not again.failure or not item.case.odd or again.noise < _ROUNDING_RULES * self._peak(item, name):
            return again
        # Nobody can say what is right where rounding alone decides, as a normalisation does with equal values.
        self.notes.append(f"at {item.case.label}, output '{name}' is rounding: torch's own error is {again.noise:.2g}")
        return OutputParity(name, again.error, again.noise)

    def _peak(self, item: Answer, name: str) -> float:
        answers = np.concatenate([np.abs(answer[name]).reshape(-1) for answer in (item.exact, self._usual)])
        return float(answers[np.isfinite(answers)].max(initial=0.0))


def _widened(own: Array, got: Array) -> bool:
    """Whether the answer comes from a float32 copy of a half precision graph."""
    return own.dtype.name in ("float16", "bfloat16") and got.dtype == np.float32


def _all_tied(path: Path, item: Answer, name: str, got: Array) -> bool:
    """Whether every element that differs is a decision that the graph itself shows to be a tie."""
    wanted = item.own[name]
    tied = tied_places(path, name, item.case.feeds, wanted, got, MULTIPLE * 2.0**-20)
    return tied is not None and bool(np.all(tied | (wanted == got)))


def _fed(inputs: Sequence[TensorSpec], feeds: Feeds) -> dict[str, Array]:
    """``feeds`` in the float types the file takes: a widened copy wants float32."""
    wanted = {spec.name: spec.dtype for spec in inputs}
    return {
        name: array.astype(numpy_dtype(wanted[name])) if wanted[name] in FLOATS else array
        for name, array in feeds.items()
    }


@contextmanager
def opened(path: Path) -> Iterator[tuple[Session, str]]:
    """Open ``path`` on the first engine there is; a file in half precision that it cannot run is widened to float32.

    Raises:
        StrategyFailed: no engine opens it.
    """
    name = next((name for name in _ENGINES if registry.provider(name).probe().__struct_config__.tag == "available"), "")
    if not name:
        raise UsageError("no engine to check the graph with", next_step="pip install 'onnx-toolkit[cpu]'")
    provider = registry.provider(name)
    try:
        session = provider.open(path)
    except (NotApplicable, EngineError) as exc:
        model = load_model(path)
        if not has_halves(model):
            raise StrategyFailed(f"{name} does not open the graph: {_said(exc)}") from exc
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "wide.onnx"
            save_model(single_precision(model), copy)
            with provider.open(copy) as wide:
                yield wide, f"{name}, on a float32 copy of the graph, since it has no half precision kernels for it"
        return
    except ToolkitError as exc:
        raise StrategyFailed(f"{name} does not open the graph: {_said(exc)}") from exc
    with session:
        yield session, name


def _said(exc: ToolkitError) -> str:
    return exc.what if exc.got is None else f"{exc.what}: {exc.got}"
