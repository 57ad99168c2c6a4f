"""Every run, kept in one SQLite file of the user's, so that a number can be asked where it came from and what it was.

The file is ``$TOOLKIT_HISTORY``, else ``history.sqlite`` in the user's data folder; ``TOOLKIT_HISTORY=off`` keeps none.
A run is its whole report, compressed, with the samples of each case beside it; what is filtered by stands in columns.
Writers wait for each other (write-ahead log, immediate transactions), and a run is in the file whole or not at all.

Versions of the file (``PRAGMA user_version``): every change is a step added to :data:`_MIGRATIONS`, never an edit of
one; opening an older file applies those it lacks in one transaction. A newer file is left alone. Columns are only ever
added, since what they are computed from is in the report.
"""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, final

import msgspec
import numpy as np

from toolkit.errors import FileProblem, InvalidData, ToolkitError, UsageError
from toolkit.files import data_folder
from toolkit.profiler.reading import checked_report, decoded_report
from toolkit.profiler.records import CaseRecord, ProfileReport

OFF = "off"
_VARIABLE = "TOOLKIT_HISTORY"
_APPLICATION = 0x544B4831  # "TKH1": tells our file from any other SQLite file
_WAIT_S = 10.0
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, time_utc TEXT NOT NULL, fingerprint TEXT NOT NULL,"
        " report BLOB NOT NULL)",
        "CREATE TABLE cases (run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, number INTEGER NOT NULL,"
        " model TEXT NOT NULL, model_sha256 TEXT NOT NULL, target TEXT NOT NULL, batch INTEGER, dims TEXT NOT NULL,"
        " scenario TEXT NOT NULL, status TEXT NOT NULL, p50_ns INTEGER, p50_low_ns INTEGER, p50_high_ns INTEGER,"
        " p90_ns INTEGER, p99_ns INTEGER, samples BLOB NOT NULL, PRIMARY KEY (run, number))",
        "CREATE INDEX cases_by_model ON cases (model, target)",
        "CREATE INDEX cases_by_hash ON cases (model_sha256, target)",
    ),
    ("ALTER TABLE cases ADD COLUMN streams INTEGER",),
)
VERSION = len(_MIGRATIONS)
LARGEST_RUN = 2**63 - 1
"""The largest integer of SQLite. Source: sqlite.org/datatype3.html."""
_COLUMNS = (
    "run", "time_utc", "fingerprint", "model", "model_sha256", "target", "batch", "dims", "scenario", "status",
    "p50_ns", "p50_low_ns", "p50_high_ns", "p90_ns", "p99_ns",
    "streams",
)  # fmt: skip


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a run as lists show it; times in nanoseconds, ``dims`` as ``seq=64,width=2``.

    ``streams`` is None where the run was kept before they were a column.
    """

    run: int
    time_utc: str
    fingerprint: str
    model: str
    model_sha256: str
    target: str
    batch: int | None
    dims: str
    scenario: str
    status: str
    p50_ns: int | None
    p50_low_ns: int | None
    p50_high_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    streams: int | None


def history_path() -> Path | None:
    """Where this user's history is; None where none is wanted.

    Raises:
        FileProblem: this user has no folder for it.
    """
    named = os.environ.get(_VARIABLE, "")
    if named:
        return None if named == OFF else Path(named)
    try:
        return data_folder() / "history.sqlite"
    except RuntimeError as exc:  # Path.home() of a user who has none
        raise FileProblem("no place for the history", got=exc, next_step=f"set {_VARIABLE}=FILE or =off") from exc


def record_run(report: ProfileReport, history: str | os.PathLike[str] | bool) -> int | None:
    """Add ``report`` to a history: the user's for True, the file that a path names, none for False.

    A history that cannot be written is one warning: it must not cost the measurement. Runs that measured nothing are
    left out.

    Returns:
        The run's id in the history; None where it is in none.
    """
    if history is False or not report.measured:
        return None
    try:
        path = history_path() if history is True else Path(os.fspath(history))
        if path is None:
            return None
        with open_history(path) as opened:
            return opened.add(report)
    except ToolkitError as exc:
        warnings.warn(f"this run is not in the history: {exc}", stacklevel=2)
        return None


@contextmanager
def open_history(path: Path) -> Iterator[History]:
    """The history in ``path``, created on first use.

    Raises:
        FileProblem: it cannot be read or written, is damaged, belongs to something else, or is a newer toolkit's.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection, path)
            yield History(connection, path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as exc:
        raise FileProblem("the history cannot be used", where=path, got=exc) from exc
    except sqlite3.DatabaseError as exc:
        raise FileProblem(
            "the history is damaged", where=path, got=exc, next_step="move it away; the next run starts a new one"
        ) from exc
    except OSError as exc:
        raise FileProblem("the history cannot be used", where=path, got=exc.strerror or exc) from exc


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = _checked_version(connection, path)
    if version == VERSION:
        return
    _use_write_ahead_log(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in _MIGRATIONS[_checked_version(connection, path) :]:  # again: another process may have been faster
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _checked_version(connection: sqlite3.Connection, path: Path) -> int:
    version, application, tables = (
        int(connection.execute(query).fetchone()[0])
        for query in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
    )
    if application != _APPLICATION and (tables or version or application):
        raise FileProblem(
            "this is another program's database", where=path, next_step=f"set {_VARIABLE} to a file of its own"
        )
    if version > VERSION:
        raise FileProblem(
            "the history was written by a newer toolkit", where=path, got=f"version {version}",
            expected=f"up to {VERSION}", next_step=f"update this one, or set {_VARIABLE} to another file",
        )  # fmt: skip
    return version


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Readers and writers then do not wait for each other. The switch does not wait for locks by itself."""
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # where a file system cannot, it stays as it was
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@final
class History:
    """An open history. Ids of runs count up and are never used again."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def add(self, report: ProfileReport) -> int:
        """Add one run; returns its id."""
        bare = msgspec.structs.replace(
            report, cases=[msgspec.structs.replace(case, samples_ns=[]) for case in report.cases]
        )
        head = (report.time_utc, report.environment.fingerprint, zlib.compress(bare.to_json()))
        rows = [_row(number, case) for number, case in enumerate(report.cases)]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            cursor = self._connection.execute("INSERT INTO runs (time_utc, fingerprint, report) VALUES (?, ?, ?)", head)
            run = int(cursor.lastrowid or 0)
            marks = ", ".join("?" * (1 + len(rows[0])))
            self._connection.executemany(f"INSERT INTO cases VALUES ({marks})", [(run, *row) for row in rows])
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        return run

    def report(self, run: int) -> ProfileReport:
        """The report of one run, samples and all.

        Raises:
            UsageError: there is no such run.
            InvalidData: its record is damaged.
        """
        where = f"{self._path}: run {run}"
        query = "SELECT report FROM runs WHERE id = ?"
        found = self._connection.execute(query, (run,)).fetchone() if 0 < run <= LARGEST_RUN else None
        if found is None:
            raise UsageError(
                "the history has no such run", where=self._path, got=run, next_step="toolkit history lists them"
            )
        stored = self._connection.execute("SELECT number, samples FROM cases WHERE run = ?", (run,)).fetchall()
        try:
            content, samples = zlib.decompress(found[0]), {number: _unpacked(blob) for number, blob in stored}
        except (zlib.error, ValueError, TypeError) as exc:
            raise InvalidData("the run's record is damaged", where=where, got=exc) from exc
        return _with_samples(content, samples, where)

    def entries(self, *, model: str = "", target: str = "", since: str = "", limit: int | None = None) -> list[Entry]:
        """Cases of the last ``limit`` runs that have any which fit, the newest run first.

        Args:
            model: its name, or the first four or more digits of its hash.
            target: its name. since: ISO 8601 in UTC, of the earliest run.
        """
        fits = (
            "(:model = '' OR model = :model OR"
            " (length(:model) >= 4 AND substr(model_sha256, 1, length(:model)) = lower(:model)))"
            " AND (:target = '' OR target = :target) AND time_utc >= :since"
        )
        joined = "cases JOIN runs ON run = id"
        query = (
            f"SELECT {', '.join(_COLUMNS)} FROM {joined} WHERE {fits} AND run IN"
            f" (SELECT DISTINCT run FROM {joined} WHERE {fits} ORDER BY run DESC LIMIT :limit)"
            " ORDER BY run DESC, number"
        )
        wanted = {"model": model, "target": target, "since": since, "limit": -1 if limit is None else limit}
        rows = self._connection.execute(query, wanted)
        return [Entry(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]

    def prune(self, *, keep: int | None = None, before: str = "") -> int:
        """Delete all runs but the newest ``keep``, and those from before an ISO 8601 time; returns how many went."""
        older = "id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT :keep)" if keep is not None else "0"
        count = self._connection.execute(
            f"DELETE FROM runs WHERE {older} OR time_utc < :before", {"keep": keep, "before": before}
        ).rowcount
        if count:
            with suppress(sqlite3.OperationalError):  # somebody reads it: the space is used again anyway
                self._connection.execute("VACUUM")
        return count


def _row(number: int, case: CaseRecord) -> tuple[Any, ...]:
    latency = case.latency_ns
    low, high = (latency.p50_ci if latency else None) or (None, None)
    p50, p90, p99 = (latency.p50, latency.p90, latency.p99) if latency else (None, None, None)
    dims = ",".join(f"{name}={size}" for name, size in case.dims.items())
    facts = (number, case.model, case.model_sha256, case.target, case.batch, dims, case.scenario, case.status)
    return (*facts, p50, low, high, p90, p99, _packed(case.samples_ns), case.streams)


def _packed(samples_ns: list[int]) -> bytes:
    """Samples as bytes: all their lowest bytes first, then the next, since the high ones repeat and so compress."""
    planes = np.asarray(samples_ns, dtype="<u8").view(np.uint8).reshape(-1, 8).T
    return zlib.compress(planes.tobytes())


def _unpacked(blob: bytes) -> list[int]:
    planes = np.frombuffer(zlib.decompress(blob), dtype=np.uint8).reshape(8, -1)
    found: list[int] = np.ascontiguousarray(planes.T).view("<u8").reshape(-1).tolist()
    return found


def _with_samples(content: bytes, samples: dict[int, list[int]], where: str) -> ProfileReport:
    bare = decoded_report(content, where, bare=True)
    cases = [
        msgspec.structs.replace(case, samples_ns=samples.get(number, [])) for number, case in enumerate(bare.cases)
    ]
    return checked_report(msgspec.structs.replace(bare, cases=cases), where)
