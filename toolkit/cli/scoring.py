"""The process that one model is scored in: ``python -m toolkit.cli.scoring``, a job on stdin, an answer on stdout.

A process of its own, so that an engine that crashes costs this score and not the report that waits for it.
"""

from __future__ import annotations

import sys

import msgspec

from toolkit.cli.accuracy import Job, Score
from toolkit.errors import ToolkitError, UsageError
from toolkit.evaluator.api import evaluate
from toolkit.evaluator.report import EvaluationReport
from toolkit.profiler.records import AccuracyRecord
from toolkit.profiler.worker import open_source as open_session
from toolkit.profiler.worker import take_over_stdout

# The one number that stands for a task, the first that there is; a metric of another name stands for itself.
_TELLING = ("accuracy", "perplexity", "psnr_db")


def score(job: Job) -> AccuracyRecord:
    """Evaluate the job's model on its target.

    Raises:
        ToolkitError: as :func:`toolkit.evaluator.api.evaluate`.
    """
    case = job.case
    if case.opener is None:
        return telling(evaluate(case.path, job.data, target=case.target, preprocessing=job.preprocessing))
    from toolkit.exporter.sources.opening import open_source

    source = open_source(case.path)
    with open_session(case) as session:
        session.preprocessing, session.labels = source.preprocessing, source.labels
        return telling(evaluate(session, job.data, task=source.task or None))


def telling(found: EvaluationReport) -> AccuracyRecord:
    """The metric that says most about ``found``, with its interval.

    Raises:
        UsageError: there is none.
    """
    name = next((name for name in (*_TELLING, *found.metrics) if name in found.metrics), None)
    if name is None:
        raise UsageError("no metric came of this", where=found.data)
    interval = found.intervals.get(name)
    return AccuracyRecord(metric=name, value=found.metrics[name], interval=interval, samples=found.samples)


def answer(text: bytes) -> Score:
    try:
        return Score(record=score(msgspec.json.decode(text, type=Job)))
    except ToolkitError as exc:
        return Score(problem=str(exc))


if __name__ == "__main__":
    replies = take_over_stdout()
    replies.write(msgspec.json.encode(answer(sys.stdin.buffer.read())))
