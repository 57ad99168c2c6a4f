"""``toolkit profile --accuracy``: what each measured model is worth on its target, beside how long it takes there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import msgspec

from toolkit.errors import ToolkitError, UsageError
from toolkit.preprocess import Preprocessing
from toolkit.profiler.api import OPENER
from toolkit.profiler.cases import Case
from toolkit.profiler.interrupts import SIGNALS
from toolkit.profiler.models import Model
from toolkit.profiler.models import models as described
from toolkit.profiler.planning import wanted_targets
from toolkit.profiler.records import AccuracyRecord, CaseRecord, ProfileReport
from toolkit.targets import Target

UNKNOWN = "its quality is not known"


class Job(msgspec.Struct, frozen=True):
    """What to score on what; ``preprocessing`` None means what the file records."""

    case: Case
    data: str
    preprocessing: Preprocessing | None = None


class Score(msgspec.Struct, frozen=True):
    """The answer: a record, or why there is none."""

    record: AccuracyRecord | None = None
    problem: str = ""


def require_data(accuracy: bool, data: os.PathLike[str] | None) -> None:
    """Check that there is something to score on.

    Raises:
        UsageError: there is not.
    """
    if accuracy and data is None:
        raise UsageError("nothing to score on", where="--accuracy", next_step="give labelled samples: --data")


def with_accuracy(
    report: ProfileReport,
    models: Sequence[str],
    targets: Sequence[str],
    data: os.PathLike[str] | str,
    say: Callable[[str], None] = lambda text: None,
) -> ProfileReport:
    """``report`` with the quality of every measured case: each model once per target, whatever the batch.

    One that cannot be scored says why in its warnings. Ctrl-C ends the scoring, and keeps what there is.

    Args:
        models: those that were measured, as they were given to the profiler.
        targets: likewise.
        data: labelled samples (docs/data.md).
        say: told of each model before its turn.
    """
    if report.interrupted:
        return report
    named = {model.name: model for model in described(models)}
    known, _ = wanted_targets(targets)
    scores: dict[tuple[str, str], Score] = {}
    interrupted = False
    try:
        for case in report.measured:
            key = (case.model, case.target)
            if key not in scores and case.model in named and case.target in known:
                say(f"scoring {case.model} on {case.target}")
                scores[key] = _scored(named[case.model], known[case.target], os.fspath(data))
    except KeyboardInterrupt:
        interrupted = True
    cases = [_with(case, scores.get((case.model, case.target))) for case in report.cases]
    return msgspec.structs.replace(report, cases=cases, interrupted=interrupted)


def require_scores(report: ProfileReport) -> None:
    """Check that what was to be scored was.

    Raises:
        ToolkitError: naming the first that was not, and why.
    """
    failed = [(case, text) for case in report.cases for text in case.warnings if text.startswith(UNKNOWN)]
    if failed:
        what = f"the quality of {len(failed)} of {len(report.measured)} cases is not known"
        raise ToolkitError(what, where=failed[0][0].id, got=failed[0][1].removeprefix(f"{UNKNOWN}: "))


def _with(case: CaseRecord, found: Score | None) -> CaseRecord:
    if found is None or case.status != "ok":
        return case
    if found.record is None:
        return msgspec.structs.replace(case, warnings=[*case.warnings, f"{UNKNOWN}: {found.problem}"])
    return msgspec.structs.replace(case, accuracy=found.record)


def _scored(model: Model, target: Target, data: str) -> Score:
    opener = OPENER if model.kind == "source" else None
    case = Case(model=model.name, path=model.path, target=target, opener=opener, precision=model.precision)
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cli.scoring"],
        input=msgspec.json.encode(Job(case, data, model.preprocessing)), capture_output=True, check=False,
    )  # fmt: skip
    if -done.returncode in SIGNALS:
        raise KeyboardInterrupt  # after measuring, a signal is kept from this process, so that reports are written
    if done.returncode:
        return Score(problem=_ending(done.returncode, done.stderr))
    return msgspec.json.decode(done.stdout, type=Score)


def _ending(code: int, errors: bytes) -> str:
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    lines = errors.decode(errors="replace").strip().splitlines()
    return f"its process ended with exit code {code}" + (f": {lines[-1]}" if lines else "")
