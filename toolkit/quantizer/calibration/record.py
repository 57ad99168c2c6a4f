"""What one calibration saw, as a file that can be inspected, used again and lowered for another provider."""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path

import msgspec
import numpy as np

from toolkit.errors import InvalidData, UsageError
from toolkit.files import existing_file, write_atomic
from toolkit.quantizer.calibration.histogram import Distribution

SUFFIX = ".json"
SCHEMA_VERSION = 1


class TensorRecord(msgspec.Struct, frozen=True):
    """A :class:`Distribution` on disk; ``counts`` are little-endian int64, deflated (base64 in JSON)."""

    lowest: float
    highest: float
    exponent: int
    first: int
    counts: bytes
    values: int
    nonfinite: int


class CalibrationRecord(msgspec.Struct, frozen=True):
    """One calibration.

    Attributes:
        model: name of the file that was calibrated, for people; ``model_sha256`` is what counts.
        data_sha256: None where the samples came from Python and have no hash.
        samples: how many were run.
        tensors: by name in the model.
    """

    model: str
    model_sha256: str
    data: str
    data_sha256: str | None
    samples: int
    tensors: dict[str, TensorRecord]
    schema_version: int = SCHEMA_VERSION

    def distribution(self, tensor: str) -> Distribution | None:
        """What was seen of ``tensor``; None when it was not observed."""
        found = self.tensors.get(tensor)
        return None if found is None else _unpack(found)

    def require(self, model_sha256: str, where: object) -> CalibrationRecord:
        """This record, if it was made from that model.

        Raises:
            UsageError: it was made from another one.
        """
        if self.model_sha256 != model_sha256:
            raise UsageError(
                "this calibration record was made from another model",
                where=where,
                got=f"{self.model} ({self.model_sha256[:12]}…)",
                expected=f"{model_sha256[:12]}…",
                next_step="calibrate again: --calibration DATA",
            )
        return self

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the record, whole or not at all; equal records give equal bytes."""
        return write_atomic(path, msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1))


def pack(seen: Distribution) -> TensorRecord:
    counts = zlib.compress(seen.counts.astype("<i8").tobytes(), 6)
    return TensorRecord(
        seen.lowest, seen.highest, seen.exponent, seen.first, counts, seen.values, seen.nonfinite
    )  # fmt: skip


def _unpack(record: TensorRecord) -> Distribution:
    counts = np.frombuffer(zlib.decompress(record.counts), "<i8").astype(np.int64)
    return Distribution(
        record.lowest, record.highest, record.exponent, record.first, counts, record.values, record.nonfinite
    )  # fmt: skip


def read_record(path: str | os.PathLike[str]) -> CalibrationRecord:
    """Read what :meth:`CalibrationRecord.write` wrote.

    Raises:
        FileProblem: the file is missing or unreadable.
        InvalidData: it is no calibration record, or a damaged or newer one.
    """
    path = existing_file(path, "calibration record")
    try:
        record = msgspec.json.decode(path.read_bytes(), type=CalibrationRecord)
        if record.schema_version <= SCHEMA_VERSION:
            for tensor in record.tensors.values():
                _check(_unpack(tensor))
    except (msgspec.DecodeError, zlib.error, ValueError, RecursionError) as exc:
        raise InvalidData("not a calibration record", where=path, got=exc, next_step="calibrate again") from exc
    if record.schema_version > SCHEMA_VERSION:
        got = f"schema_version {record.schema_version}"
        raise InvalidData("written by a newer toolkit", where=path, got=got, expected=f"at most {SCHEMA_VERSION}")
    return record


def _check(seen: Distribution) -> None:
    if not (math.isfinite(seen.lowest) and math.isfinite(seen.highest) and seen.lowest <= seen.highest):
        raise ValueError(f"range {seen.lowest} to {seen.highest}")
    if seen.values and (not seen.counts.size or (seen.counts < 0).any()):
        raise ValueError("a histogram without counts, or with negative ones")
