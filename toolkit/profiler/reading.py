"""Reports read back from JSON files, of this version and of every older one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from toolkit.errors import InvalidData
from toolkit.files import existing_file
from toolkit.profiler.records import SCHEMA_VERSION, CaseRecord, ProfileReport
from toolkit.profiler.rounds import blocks, latency

_AGAIN = "toolkit profile MODEL -o FILE.json writes one"


class _Head(msgspec.Struct, frozen=True):
    schema_version: int


def read_report(path: str | os.PathLike[str]) -> ProfileReport:
    """The report in ``path``, a file that ``toolkit profile -o FILE.json`` or ``--format json`` wrote.

    Raises:
        FileProblem: missing or unreadable.
        InvalidData: damaged, no report, or written by a newer toolkit.
    """
    path = existing_file(path, "report")
    return decoded_report(path.read_bytes(), path)


def decoded_report(content: bytes, where: str | Path, *, bare: bool = False) -> ProfileReport:
    """The report that ``content`` holds; ``where`` is for messages, ``bare`` says that its samples are kept elsewhere.

    Raises:
        InvalidData: as for :func:`read_report`.
    """
    try:
        version = msgspec.json.decode(content, type=_Head).schema_version
    except msgspec.DecodeError as exc:
        raise InvalidData("not a readable profile report", where=where, got=exc, next_step=_AGAIN) from exc
    if version > SCHEMA_VERSION:
        raise InvalidData(
            "the report was written by a newer toolkit", where=where, got=f"schema_version {version}",
            expected=f"up to {SCHEMA_VERSION}", next_step="update this one",
        )  # fmt: skip
    try:
        report = msgspec.json.decode(content, type=ProfileReport)
    except msgspec.DecodeError as exc:
        raise InvalidData("not a readable profile report", where=where, got=exc, next_step=_AGAIN) from exc
    return report if bare else checked_report(report, where)


def checked_report(report: ProfileReport, where: str | Path) -> ProfileReport:
    """``report`` with all its samples, checked; percentiles that somebody took out of it are computed again.

    Raises:
        InvalidData: samples and blocks do not fit, or a case is said to be measured and holds nothing.
    """
    for case in report.cases:
        check_samples(case, where)
    return msgspec.structs.replace(report, cases=[_with_latency(case, where) for case in report.cases])


def _with_latency(case: CaseRecord, where: str | Path) -> CaseRecord:
    if case.status != "ok" or (case.samples_ns and case.latency_ns is not None and case.latency_ns.p50 is not None):
        return case
    if not case.samples_ns:
        raise InvalidData(
            "the report is damaged", where=f"{where}: {case.id}", got="no samples", expected="some, as it was measured"
        )
    return msgspec.structs.replace(case, latency_ns=latency([samples for _, _, samples in blocks(case)]))


def check_samples(case: CaseRecord, where: str | Path) -> None:
    """Check that the blocks of ``case`` cut up exactly its samples, and that these are times.

    Raises:
        InvalidData: they do not, or are not.
    """
    blocks = sum(count for _, _, count in case.blocks)
    if blocks != len(case.samples_ns) or any(count < 1 for _, _, count in case.blocks):
        raise InvalidData(
            "the report is damaged", where=f"{where}: {case.id}", got=f"blocks of {blocks} samples",
            expected=f"{len(case.samples_ns)}, as many as there are",
        )  # fmt: skip
    if case.samples_ns and min(case.samples_ns) <= 0:
        raise InvalidData(
            "the report is damaged", where=f"{where}: {case.id}", got=f"a sample of {min(case.samples_ns)} ns"
        )
